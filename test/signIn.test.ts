import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { createRemoteJWKSet, decodeJwt, decodeProtectedHeader, jwtVerify } from 'jose';
import { EmbeddedIssuer } from '../apps/server/src/access/embeddedIssuer.ts';
import type { ConfigInput } from '../apps/server/src/config.ts';
import { freePort } from './support/freePort.ts';
import { engines, Installation, people, type TestServer } from './support/server.ts';
import { SignInBrowser, type BrowserPage } from './support/signInBrowser.ts';

const password = 'correct horse battery';
const callback = 'http://localhost:3000/signin-callback';
const serviceSecret = 'a-secret-of-the-service-0123456789';
const apiScopes = 'openid profile email offline_access itwin-platform';

const settings: ConfigInput = {
  clients: [
    {
      id: 'desktop',
      name: 'Desktop <b>app</b>',
      redirectUris: [callback],
      postLogoutRedirectUris: ['http://localhost:3000/signed-out'],
    },
    { id: 'web', redirectUris: ['https://app.example.com/callback'], consent: false },
    { id: 'service', secret: serviceSecret, organizationId: 'service-organization' },
  ],
  signIn: { failures: { requests: 3, seconds: 900 } },
};

interface Tokens {
  access_token: string;
  refresh_token?: string;
  id_token?: string;
  scope?: string;
  expires_in?: number;
  error?: string;
}

/** Requests of an application. */
class Application {
  readonly authority: string;
  readonly verifier = randomBytes(32).toString('base64url');
  readonly clientId: string;
  readonly redirectUri: string;

  constructor(server: TestServer, clientId = 'desktop', redirectUri = callback) {
    this.authority = `${server.origin}/auth`;
    this.clientId = clientId;
    this.redirectUri = redirectUri;
  }

  authorize(more: Record<string, string> = {}): string {
    const parameters = new URLSearchParams({
      client_id: this.clientId,
      redirect_uri: this.redirectUri,
      response_type: 'code',
      scope: apiScopes,
      state: 'the-state',
      code_challenge: createHash('sha256').update(this.verifier).digest('base64url'),
      code_challenge_method: 'S256',
      ...more,
    });
    return `${this.authority}/authorize?${parameters.toString()}`;
  }

  async token(
    fields: Record<string, string>,
    headers: Record<string, string> = {},
  ): Promise<Tokens & { status: number }> {
    const response = await fetch(`${this.authority}/token`, {
      method: 'POST',
      headers,
      body: new URLSearchParams(fields),
      signal: AbortSignal.timeout(20_000),
    });
    return { ...((await response.json()) as Tokens), status: response.status };
  }

  /** Exchanges the code in the address to which the browser was sent. */
  async exchange({ url }: BrowserPage): Promise<Tokens & { status: number }> {
    const code = new URL(url).searchParams.get('code') ?? '';
    return this.token({
      grant_type: 'authorization_code',
      client_id: this.clientId,
      code,
      redirect_uri: this.redirectUri,
      code_verifier: this.verifier,
    });
  }

  async refresh(token: string): Promise<Tokens & { status: number }> {
    return this.token({ grant_type: 'refresh_token', client_id: this.clientId, refresh_token: token });
  }

  /** The whole flow in a browser. */
  async signIn(
    browser = new SignInBrowser(),
    who: keyof typeof people = 'olivia',
  ): Promise<Tokens & { status: number }> {
    return this.exchange(await this.back(browser, who));
  }

  /** The flow up to the redirect back to the application. */
  async back(browser: SignInBrowser, who: keyof typeof people = 'olivia'): Promise<BrowserPage> {
    let page = await browser.open(this.authorize());
    if (page.body.includes('Sign in')) page = await browser.submit(page, { name: people[who].email, password });
    if (page.body.includes('Allow access?')) page = await browser.submit(page);
    return page;
  }
}

const basic = `Basic ${Buffer.from(`service:${serviceSecret}`).toString('base64')}`;

/** What the API answers to a token, and whose it is. */
async function me(server: TestServer, token: string): Promise<{ status: number; id: string | undefined }> {
  const authorization = `Bearer ${token}`;
  const { status } = await fetch(`${server.origin}/itwins`, {
    headers: { authorization, accept: 'application/vnd.bentley.itwin-platform.v1+json' },
  });
  const caller = await server.services.tokens.authenticate(authorization).catch(() => undefined);
  return { status, id: caller?.user.id };
}

for (const engine of engines)
  describe(`Sign-in on ${engine}`, () => {
    let installation: Installation;
    let server: TestServer;

    before(async () => {
      installation = await Installation.create(engine);
      server = await installation.start(settings);
      for (const who of ['olivia', 'admin'] as const)
        await server.services.accounts.setPassword(people[who].id, password);
    });
    after(async () => {
      await server.close();
      installation.remove();
    });

    test('a user signs in with a code and PKCE, and the token is that of the same user as a minted one', async () => {
      const app = new Application(server);
      const browser = new SignInBrowser();
      const signIn = await browser.open(app.authorize());
      assert.equal(signIn.status, 200);
      assert.match(signIn.body, /<html lang="en">/);
      assert.match(signIn.body, /Desktop &#60;b&#62;app&#60;\/b&#62;/);
      assert.doesNotMatch(signIn.body, /<script/);
      assert.match(signIn.headers.get('content-security-policy') ?? '', /default-src 'none'.*frame-ancestors 'none'/);
      assert.equal(signIn.headers.get('x-frame-options'), 'DENY');
      assert.equal(signIn.headers.get('cache-control'), 'no-store');

      const consent = await browser.submit(signIn, { name: people.olivia.email, password });
      assert.match(consent.body, /Allow access\?/);
      const back = await browser.submit(consent);
      assert.ok(back.url.startsWith(`${callback}?`), back.url);
      assert.equal(new URL(back.url).searchParams.get('state'), 'the-state');

      const tokens = await app.exchange(back);
      assert.equal(tokens.status, 200, JSON.stringify(tokens));
      assert.equal((await me(server, tokens.access_token)).id, people.olivia.id);
      assert.equal((await me(server, await server.token('olivia'))).id, people.olivia.id);
      const claims = decodeJwt(tokens.access_token);
      assert.deepEqual(claims['scope'], ['itwin-platform']);
      assert.deepEqual(
        [claims.aud, claims.iss, claims.sub, claims['client_id']],
        ['offshoot', app.authority, people.olivia.id, 'desktop'],
      );
      const { payload } = await jwtVerify(
        tokens.id_token as string,
        createRemoteJWKSet(new URL(`${app.authority}/jwks`)),
        { issuer: app.authority, audience: 'desktop' },
      );
      assert.equal(payload['email'], people.olivia.email);
      assert.ok(tokens.refresh_token !== undefined);
      assert.equal((await me(server, tokens.id_token as string)).status, 401);

      const info = await fetch(`${app.authority}/userinfo`, {
        headers: { authorization: `Bearer ${tokens.access_token}`, origin: 'http://localhost:3000' },
      });
      assert.equal(info.headers.get('access-control-allow-origin'), '*');
      assert.equal(((await info.json()) as { email: string }).email, people.olivia.email);
    });

    test('discovery names every endpoint below the authority, readable for pages of other origins', async () => {
      const { authority } = new Application(server);
      const response = await fetch(`${authority}/.well-known/openid-configuration`, {
        headers: { origin: 'http://localhost:3000' },
      });
      assert.equal(response.status, 200);
      assert.ok(response.headers.get('access-control-allow-origin'));
      const document = (await response.json()) as Record<string, unknown>;
      assert.equal(document['issuer'], authority);
      for (const name of [
        'authorization_endpoint',
        'token_endpoint',
        'jwks_uri',
        'userinfo_endpoint',
        'end_session_endpoint',
        'revocation_endpoint',
        'introspection_endpoint',
        'device_authorization_endpoint',
      ])
        assert.ok(String(document[name]).startsWith(`${authority}/`), name);
      assert.deepEqual(document['code_challenge_methods_supported'], ['S256']);
    });

    test('a service gets a token whose subject is its client id, and its organization', async () => {
      const app = new Application(server, 'service');
      const tokens = await app.token(
        { grant_type: 'client_credentials', scope: 'itwin-platform' },
        { authorization: basic },
      );
      assert.equal(tokens.status, 200, JSON.stringify(tokens));
      assert.equal(tokens.expires_in, 3600);
      assert.equal(decodeJwt(tokens.access_token).sub, 'service');
      const caller = await server.services.tokens.authenticate(`Bearer ${tokens.access_token}`);
      assert.deepEqual(
        [caller.user.id, caller.user.organizationId, caller.application.id, caller.administeredOrganizationIds],
        ['service', 'service-organization', 'service', []],
      );
      assert.equal((await me(server, tokens.access_token)).status, 200);

      const wrong = await app.token(
        { grant_type: 'client_credentials', scope: 'itwin-platform' },
        { authorization: `Basic ${Buffer.from('service:wrong').toString('base64')}` },
      );
      assert.deepEqual([wrong.status, wrong.error], [401, 'invalid_client']);
    });

    test('a refresh token is good once; using it again ends the grant', async () => {
      const app = new Application(server);
      const first = await app.signIn();
      const second = await app.refresh(first.refresh_token ?? '');
      assert.equal(second.status, 200, JSON.stringify(second));
      assert.equal((await app.refresh(first.refresh_token ?? '')).status, 400);
      assert.equal((await app.refresh(second.refresh_token ?? '')).status, 400);
    });

    test('the command line signs in with a code that the user enters in a browser', async () => {
      const app = new Application(server, 'offshoot-cli');
      const answer = await fetch(`${app.authority}/device-code`, {
        method: 'POST',
        body: new URLSearchParams({ client_id: 'offshoot-cli', scope: apiScopes }),
      });
      const device = (await answer.json()) as { user_code: string; device_code: string; verification_uri: string };
      const browser = new SignInBrowser();
      const entered = await browser.submit(await browser.open(device.verification_uri), {
        user_code: device.user_code,
      });
      const signIn = await browser.submit(entered);
      const consent = await browser.submit(signIn, { name: people.olivia.email, password });
      assert.match((await browser.submit(consent)).body, /The device is connected/);
      const tokens = await app.token({
        grant_type: 'urn:ietf:params:oauth:grant-type:device_code',
        client_id: 'offshoot-cli',
        device_code: device.device_code,
      });
      assert.equal((await me(server, tokens.access_token)).id, people.olivia.id);
    });

    test('signing out ends the session and returns to the application', async () => {
      const app = new Application(server);
      const browser = new SignInBrowser();
      const tokens = await app.signIn(browser);
      const parameters = new URLSearchParams({
        id_token_hint: tokens.id_token ?? '',
        post_logout_redirect_uri: 'http://localhost:3000/signed-out',
      });
      const asked = await browser.open(`${app.authority}/sign-out?${parameters.toString()}`);
      assert.equal((await browser.submit(asked)).url, 'http://localhost:3000/signed-out');
      assert.match((await browser.open(app.authorize())).body, /Sign in/);
    });

    test('wrong passwords are limited', async () => {
      const app = new Application(server);
      const browser = new SignInBrowser();
      let page = await browser.open(app.authorize());
      for (let attempt = 0; attempt < 3; attempt++) {
        page = await browser.submit(page, { name: people.admin.email, password: 'a wrong password' });
        assert.equal(page.status, 401);
      }
      assert.equal((await browser.submit(page, { name: people.admin.email, password })).status, 429);
    });

    test('a link that sets a password is good once', async () => {
      const token = await server.services.accounts.makeLink({ userId: people.max.id, purpose: 'user' }, 60);
      const address = `${server.origin}/auth/password?link=${token}`;
      const browser = new SignInBrowser();
      const chosen = { password: 'a long password', repeated: 'a long password' };
      assert.match((await browser.submit(await browser.open(address), chosen)).body, /Your password is set/);
      assert.equal((await browser.open(address)).status, 410);
    });
  });

describe('Sign-in over time', () => {
  let installation: Installation;
  let server: TestServer;
  let port: number;

  before(async () => {
    installation = await Installation.create('sqlite');
    port = await freePort();
    server = await installation.start({ ...settings, port });
    await server.services.accounts.setPassword(people.olivia.id, password);
  });
  after(async () => {
    await server.close();
    installation.remove();
  });

  test('sessions and refresh tokens survive a restart', async () => {
    const browser = new SignInBrowser();
    const tokens = await new Application(server).signIn(browser);
    await server.close();
    server = await installation.start({ ...settings, port });
    const app = new Application(server);
    assert.equal((await app.refresh(tokens.refresh_token ?? '')).status, 200);
    assert.equal((await me(server, tokens.access_token)).id, people.olivia.id);
    // The session is known, and the consent is remembered: no page is shown.
    const again = await browser.open(app.authorize());
    assert.ok(again.url.startsWith(`${callback}?`), again.body);
    assert.equal((await app.exchange(again)).status, 200);
  });

  test('tokens of a replaced key stay good for the overlap, and new ones have the new key', async () => {
    const app = new Application(server);
    const keyOf = (token: string): unknown => decodeProtectedHeader(token).kid;
    const keys = async (): Promise<unknown[]> =>
      ((await (await fetch(`${app.authority}/jwks`)).json()) as { keys: { kid: string }[] }).keys.map(({ kid }) => kid);
    const first = await app.signIn();
    await EmbeddedIssuer.rotate(installation.dataDir, 3_600_000);
    const second = await new Application(server).signIn();
    assert.notEqual(keyOf(second.access_token), keyOf(first.access_token));
    assert.deepEqual(new Set(await keys()), new Set([keyOf(first.access_token), keyOf(second.access_token)]));
    for (const { access_token } of [first, second]) assert.equal((await me(server, access_token)).id, people.olivia.id);

    // A verified token is accepted for another minute without a new verification, so this one has not been used yet.
    const unused = await new Application(server).signIn();
    await EmbeddedIssuer.rotate(installation.dataDir, 0);
    assert.equal((await me(server, unused.access_token)).status, 401);
    assert.equal((await keys()).length, 1);
  });

  test('a revoked refresh token is not good any more', async () => {
    const app = new Application(server);
    const tokens = await app.signIn();
    const revoked = await fetch(`${app.authority}/revoke`, {
      method: 'POST',
      body: new URLSearchParams({ token: tokens.refresh_token ?? '', client_id: 'desktop' }),
    });
    assert.equal(revoked.status, 200);
    assert.equal((await app.refresh(tokens.refresh_token ?? '')).status, 400);
  });

  test('is refused beyond this machine without https, in a sentence that names the remedy', async () => {
    const other = await Installation.create('sqlite');
    const open = await other.start({ ...settings, publicUrl: 'http://imodels.example.test' });
    try {
      const page = await new SignInBrowser().open(new Application(open).authorize());
      assert.equal(page.status, 403);
      assert.match(page.body, /needs https/);
      const discovery = await fetch(`${open.origin}/auth/.well-known/openid-configuration`);
      assert.deepEqual(
        [discovery.status, ((await discovery.json()) as { error: string }).error],
        [403, 'access_denied'],
      );
    } finally {
      await open.close();
      other.remove();
    }
  });
});
