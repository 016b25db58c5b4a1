/** OpenID Connect issuers outside the server, with tokens as Keycloak and Microsoft Entra ID shape them, and why tokens are refused. */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { generateKeyPair } from 'jose';
import { RefusalLog, RefusedToken } from '../apps/server/src/access/refusedToken.ts';
import { ConfigError, type ConfigInput } from '../apps/server/src/config.ts';
import { Api, type WireError } from './support/api.ts';
import { offshoot } from './support/commands.ts';
import { linesLogged } from './support/logs.ts';
import { startOidcIssuer, type OidcIssuer } from './support/oidcIssuer.ts';
import { bootServer, endServer, Installation, people, type TestServer } from './support/server.ts';
import { onEachDatabase } from './support/suite.ts';

const cli = fileURLToPath(new URL('../apps/server/src/cli.ts', import.meta.url));

type IssuerInput = NonNullable<ConfigInput['issuers']>[number];

/** The recipe for Keycloak in docs/sign-in.md. */
const keycloakSettings = {
  audience: 'offshoot',
  organization: 'plant-works',
  rolesClaims: ['realm_access.roles', 'resource_access.offshoot.roles'],
  administratorRoles: ['offshoot-admin'],
  tierRoles: { 'offshoot-premium': 'Premium', 'offshoot-trial': 'Trial' },
} satisfies Partial<IssuerInput>;

/** The recipe for Entra in docs/sign-in.md. */
const entraSettings = {
  audience: ['6f3a41f2-1e0c-4a63-9a0b-a3ad1b4bd0a1', 'api://6f3a41f2-1e0c-4a63-9a0b-a3ad1b4bd0a1'],
  userIdClaim: 'oid',
  organizationClaim: 'tid',
  scopeClaims: ['scp', 'roles'],
  rolesClaims: ['roles', 'groups'],
  administratorRoles: ['Offshoot.Admin', '8a1de4f1-33a1-4d7e-9a3f-64a7ad8e1a11'],
  tierRoles: { 'Offshoot.Premium': 'Premium' },
} satisfies Partial<IssuerInput>;

const settingsOf = (issuer: OidcIssuer, settings: Partial<IssuerInput>): IssuerInput => ({
  ...issuer.settings,
  ...settings,
});

/** The claims of an access token of Keycloak 26. */
function keycloakClaims(user: string, roles: { realm?: string[]; client?: string[] } = {}): object {
  return {
    sub: randomUUID(),
    typ: 'Bearer',
    azp: 'viewer',
    client_id: undefined,
    sid: randomUUID(),
    acr: '1',
    'allowed-origins': ['http://localhost:5173'],
    aud: ['offshoot', 'account'],
    realm_access: { roles: ['offline_access', 'uma_authorization', ...(roles.realm ?? [])] },
    resource_access: {
      offshoot: { roles: roles.client ?? [] },
      account: { roles: ['manage-account', 'view-profile'] },
    },
    scope: 'openid itwin-platform email profile',
    email_verified: true,
    name: `${user} Example`,
    preferred_username: user,
    given_name: user,
    family_name: 'Example',
    email: `${user}@example.test`,
  };
}

/** The claims of a delegated access token of Entra, version 2.0. */
function entraClaims(oid: string, tid: string, more: object = {}): object {
  return {
    aud: entraSettings.audience[0],
    client_id: undefined,
    scope: undefined,
    aio: 'AXQAi/8TAAAA',
    azp: 'e0f2c5a1-7f0a-4f2d-bb71-0a1f5a7b7f01',
    azpacr: '0',
    name: 'Ada Lovelace',
    oid,
    preferred_username: 'ada@contoso.example',
    rh: '0.AAAA',
    scp: 'itwin-platform',
    sub: randomUUID(),
    tid,
    uti: 'x',
    ver: '2.0',
    ...more,
  };
}

const codeOf = (answer: { body: unknown }): string | undefined => (answer.body as Partial<WireError>).error?.code;

/** A new iTwin of a user, and who it says created it. */
async function newITwin(api: Api): Promise<{ id: string; createdBy: string; iTwinAccountId: string }> {
  const { status, body } = await api.post('/itwins', {
    displayName: randomUUID(),
    class: 'Endeavor',
    subClass: 'Project',
  });
  assert.equal(status, 201, JSON.stringify(body));
  return (body as { iTwin: { id: string; createdBy: string; iTwinAccountId: string } }).iTwin;
}

onEachDatabase('Tokens as Keycloak shapes them', {}, (context) => {
  let issuer: OidcIssuer;
  let installation: Installation;
  let server: TestServer;

  before(async () => {
    issuer = await startOidcIssuer();
    installation = await Installation.create(context.server.installation.engine);
    server = await installation.start({ issuers: [settingsOf(issuer, keycloakSettings)], embeddedIssuer: false });
  });
  after(async () => {
    await server.close();
    installation.remove();
    issuer.close();
  });

  test('sign users in with names and e-mail; a realm role makes an Organization Administrator', async () => {
    const claims = keycloakClaims('grace');
    const grace = new Api(server.origin, await issuer.token(claims));
    const iTwin = await newITwin(grace);
    assert.deepEqual(
      [iTwin.createdBy, iTwin.iTwinAccountId],
      [(claims as { sub: string }).sub, keycloakSettings.organization],
    );
    const statusFor = async (who: object) =>
      (await new Api(server.origin, await issuer.token(who)).get(`/itwins/${iTwin.id}`)).status;
    assert.equal(await statusFor(keycloakClaims('linus')), 404);
    assert.equal(await statusFor(keycloakClaims('boss', { realm: ['offshoot-admin'] })), 200);
    assert.equal(await statusFor(keycloakClaims('boss', { client: ['offshoot-admin'] })), 200);
    // A role of another client, or a claim outside the configured paths, gives nothing.
    assert.equal(
      await statusFor({
        ...keycloakClaims('mallory'),
        resource_access: { account: { roles: ['offshoot-admin'] } },
        roles: ['offshoot-admin'],
        groups: ['offshoot-admin'],
      }),
      404,
    );
    assert.equal(await statusFor({ ...keycloakClaims('odd'), realm_access: 'offshoot-admin' }), 404);
    assert.equal(await statusFor({ ...keycloakClaims('odd'), realm_access: null, resource_access: [] }), 404);
  });

  test('give an application the tier of a role, in the order of the configuration', async () => {
    const tierOf = async (roles: string[], azp: string) => {
      const api = new Api(server.origin, await issuer.token({ ...keycloakClaims('ada', { realm: roles }), azp }));
      const iTwin = await newITwin(api);
      const clone = () => api.post(`/imodels/${randomUUID()}/clone`, { iTwinId: iTwin.id, name: 'x' });
      for (let n = 0; n < 60; n++) {
        const { status, headers } = await clone();
        if (status === 429) return headers.get('itwinplatform-ratelimited-tier');
      }
      return assert.fail('no limit');
    };
    assert.equal(await tierOf(['offshoot-trial'], randomUUID()), 'Trial');
    assert.equal(await tierOf(['offshoot-trial', 'offshoot-premium'], randomUUID()), 'Premium');
    assert.equal(await tierOf([], randomUUID()), 'Enterprise');
    // The entry of an application in the users file takes precedence.
    assert.equal(await tierOf(['offshoot-premium'], 'basic-app'), 'Basic');
  });
});

onEachDatabase('Tokens as Entra shapes them', {}, (context) => {
  let issuer: OidcIssuer;
  let installation: Installation;
  let server: TestServer;
  const tid = randomUUID();

  before(async () => {
    issuer = await startOidcIssuer();
    installation = await Installation.create(context.server.installation.engine);
    server = await installation.start({ issuers: [settingsOf(issuer, entraSettings)], embeddedIssuer: false });
  });
  after(async () => {
    await server.close();
    installation.remove();
    issuer.close();
  });
  const as = async (claims: object) => new Api(server.origin, await issuer.token(claims));

  test('identify a user by oid, whatever the subject at each application, and the organization by tid', async () => {
    const oid = randomUUID();
    const first = await newITwin(await as(entraClaims(oid, tid)));
    assert.deepEqual([first.createdBy, first.iTwinAccountId], [oid, tid]);
    // Another audience of the same API, for which Entra gives the same user another subject.
    const other = await as(
      entraClaims(oid, tid, { aud: entraSettings.audience[1], ver: '1.0', azp: undefined, appid: 'a' }),
    );
    assert.equal((await other.get(`/itwins/${first.id}`)).status, 200);
    assert.equal((await (await as(entraClaims(randomUUID(), tid))).get(`/itwins/${first.id}`)).status, 404);
    const withoutOid = await (await as(entraClaims(oid, tid, { oid: undefined }))).get('/itwins');
    assert.deepEqual([withoutOid.status, codeOf(withoutOid)], [401, 'Unauthorized']);
  });

  test('make administrators of a role or a group, of their own tenant only', async () => {
    const iTwin = await newITwin(await as(entraClaims(randomUUID(), tid)));
    for (const [more, status] of [
      [{ roles: ['Offshoot.Admin'] }, 200],
      [{ groups: [randomUUID(), entraSettings.administratorRoles[1]] }, 200],
      [{ groups: [randomUUID()] }, 404],
      [{ roles: ['Offshoot.Admin'], tid: randomUUID() }, 404],
      // Entra replaces long lists of groups by a reference.
      [{ _claim_names: { groups: 'src1' }, hasgroups: true }, 404],
    ] as const)
      assert.equal(
        (await (await as(entraClaims(randomUUID(), tid, more))).get(`/itwins/${iTwin.id}`)).status,
        status,
        JSON.stringify(more),
      );
  });

  test('accept a service whose permission is a role instead of a scope', async () => {
    const oid = randomUUID();
    const service = { scp: undefined, name: undefined, preferred_username: undefined, idtyp: 'app', sub: oid };
    const allowed = await as(entraClaims(oid, tid, { ...service, roles: ['itwin-platform'] }));
    assert.equal((await newITwin(allowed)).createdBy, oid);
    const denied = await (await as(entraClaims(randomUUID(), tid, { ...service, roles: ['Other'] }))).get('/itwins');
    assert.deepEqual([denied.status, codeOf(denied)], [401, 'RequiredScopeMissing']);
  });
});

onEachDatabase('A user recorded before userIdClaim was configured', {}, (context) => {
  test('keeps the account, and nobody gets it by choosing that claim', async (t) => {
    const issuer = await startOidcIssuer();
    const installation = await Installation.create(context.server.installation.engine);
    t.after(() => {
      issuer.close();
      installation.remove();
    });
    const [sub, oid] = [randomUUID(), randomUUID()];
    let server = await installation.start({ issuers: [issuer.settings] });
    const iTwin = await newITwin(new Api(server.origin, await issuer.token({ sub, oid })));
    await server.close();

    server = await installation.start({ issuers: [settingsOf(issuer, { userIdClaim: 'oid' })] });
    t.after(() => server.close());
    const sees = async (claims: object) =>
      (await new Api(server.origin, await issuer.token(claims)).get(`/itwins/${iTwin.id}`)).status;
    // The claim equals the subject, and the user id, of the other user.
    assert.equal(await sees({ sub: randomUUID(), oid: sub }), 404);
    assert.deepEqual(await Promise.all(Array.from({ length: 5 }, () => sees({ sub, oid }))), [200, 200, 200, 200, 200]);
    // From then on the claim alone counts.
    assert.equal(await sees({ sub: randomUUID(), oid }), 200);
    assert.equal(await sees({ sub, oid: randomUUID() }), 404);
    const api = new Api(server.origin, await issuer.token({ sub: randomUUID(), oid }));
    assert.equal((await newITwin(api)).createdBy, sub);
  });
});

describe('An e-mail from another claim than `email`', () => {
  test('is verified only if the issuer is configured so, whatever email_verified says', async (t) => {
    const [trusted, plain] = [await startOidcIssuer(), await startOidcIssuer()];
    const server = await bootServer('sqlite', {
      issuers: [
        settingsOf(trusted, { emailClaim: 'contact.mail', emailsVerified: true }),
        settingsOf(plain, { emailClaim: 'contact.mail' }),
      ],
    });
    t.after(async () => {
      await endServer(server);
      trusted.close();
      plain.close();
    });
    const iTwinId = await server.iTwin('olivia');
    const statusOf = async (issuer: OidcIssuer) =>
      (
        await new Api(
          server.origin,
          await issuer.token({ sub: randomUUID(), contact: { mail: people.admin.email }, email_verified: true }),
        ).get(`/itwins/${iTwinId}`)
      ).status;
    assert.deepEqual([await statusOf(trusted), await statusOf(plain)], [200, 404]);
  });
});

describe('A refused token', () => {
  let issuer: OidcIssuer;
  let server: TestServer;

  before(async () => {
    issuer = await startOidcIssuer();
    server = await bootServer('sqlite', {
      issuers: [settingsOf(issuer, { ...keycloakSettings, userIdClaim: 'ids.plant', audience: ['offshoot', 'plant'] })],
    });
  });
  after(async () => {
    await endServer(server);
    issuer.close();
  });

  const now = () => Math.floor(Date.now() / 1000);

  test('is logged with its reason, its remedy and what was wanted, and never with the token', async (t) => {
    const lines = linesLogged(t, server, 'info');
    const { privateKey } = await generateKeyPair('ES256');
    const claims = { sub: 'a', aud: 'offshoot', ids: { plant: 'p-1' } };
    const long = 'x'.repeat(5000);
    const tokens: Record<string, [token: string, reason: string, message: RegExp]> = {
      'another audience': [
        await issuer.token({ ...claims, aud: ['account', 'portal'] }),
        'audience',
        /audience is "account", "portal"; wanted is "offshoot", "plant"/,
      ],
      'no scope': [
        await issuer.token({ ...claims, scope: 'openid email' }),
        'scope',
        /scope is "openid", "email"; wanted is "itwin-platform"/,
      ],
      'an unknown issuer': [
        await issuer.token({ ...claims, iss: `https://evil.example/\u001b[31m${long}` }),
        'issuerUnknown',
        /issuer is "https:\/\/evil\.example\/\\u001b\[31mx+"…; configured are "/,
      ],
      expired: [await issuer.token({ ...claims, exp: now() - 7200 }), 'expired', /expired 2 hours ago/],
      'not yet valid': [
        await issuer.token({ ...claims, nbf: now() + 600 }),
        'notYetValid',
        /not valid for another (10|9) minutes/,
      ],
      'a bad signature': [await issuer.token(claims, { key: privateKey }), 'badSignature', /signature is not that/],
      'an unknown key': [await issuer.token(claims, { header: { kid: 'two' } }), 'keyUnknown', /no key.*"two"/],
      'an ID token': [await issuer.token({ ...claims, at_hash: 'x' }), 'notAnAccessToken', /ID token/],
      'a refresh token': [await issuer.token({ ...claims, typ: 'Refresh' }), 'notAnAccessToken', /type is "Refresh"/],
      'no user id': [await issuer.token({ ...claims, ids: {} }), 'claim', /"ids\.plant", which names the user/],
      'no token': ['opaque', 'malformed', /not a signed JSON Web Token/],
      'of another algorithm': [
        [
          Buffer.from(JSON.stringify({ alg: 'HS256' })).toString('base64url'),
          ...(await issuer.token(claims)).split('.').slice(1),
        ].join('.'),
        'algorithm',
        /algorithm is "HS256"; accepted are "ES256"/,
      ],
    };
    for (const [what, [token, reason, message]] of Object.entries(tokens)) {
      lines.length = 0;
      const answer = await new Api(server.origin, token).get('/itwins');
      assert.equal(answer.status, 401, what);
      assert.ok(!/wanted|configured|expired 2/.test(JSON.stringify(answer.body)), what);
      const [line, ...others] = lines.filter(({ msg }) => msg.startsWith('token refused'));
      assert.deepEqual([line?.['reason'], others.length], [reason, 0], `${what}: ${JSON.stringify(lines)}`);
      assert.match(line?.msg ?? '', message, what);
      assert.ok(typeof line?.['remedy'] === 'string' && line.msg.length < 1000, what);
      // No part of the token that its sender could use.
      for (const part of token.split('.')) if (part.length > 8) assert.ok(!JSON.stringify(line).includes(part), what);
    }
  });

  test('that is sent again is not logged again for a minute', async (t) => {
    const lines = linesLogged(t, server, 'info');
    const token = await issuer.token({ sub: 'a', aud: 'again', ids: { plant: 'p-1' } });
    for (let n = 0; n < 20; n++) assert.equal((await new Api(server.origin, token).get('/itwins')).status, 401);
    assert.equal(lines.filter(({ msg }) => msg.startsWith('token refused')).length, 1);
  });

  test('of any number takes bounded room in the log and in memory', () => {
    let at = 0;
    const log = new RefusalLog(() => at);
    const refuse = (text: string) => log.next(new RefusedToken('issuerUnknown', text, { remedy: '' }));
    const logged = Array.from({ length: 10_000 }, (_, n) => refuse(`issuer ${n}`)).filter((each) => each.logged);
    assert.equal(logged.length, 5);
    at += 60_000;
    assert.deepEqual(refuse('another'), { logged: true, suppressed: 9995 });
  });
});

describe('An installation with outside issuers only', () => {
  test('says in its banner and to the doctor who its administrators are, or that there are none yet', async (t) => {
    const issuer = await startOidcIssuer();
    const folder = mkdtempSync(path.join(tmpdir(), 'offshoot-test-'));
    t.after(() => {
      issuer.close();
      rmSync(folder, { recursive: true });
    });
    const file = path.join(folder, 'offshoot.json');
    const configure = (settings: Partial<IssuerInput>) =>
      writeFileSync(
        file,
        JSON.stringify({
          dataDir: path.join(folder, 'data'),
          port: 0,
          embeddedIssuer: false,
          checkpoints: { generate: 'off' },
          issuers: [settingsOf(issuer, settings)],
        }),
      );
    const examine = async () => (await offshoot(['doctor', '--config', file])).stdout;
    const banner = async () => {
      const child = spawn(process.execPath, [cli, 'start', '--config', file], { stdio: ['ignore', 'pipe', 'pipe'] });
      try {
        return await new Promise<string>((resolve, reject) => {
          let text = '';
          const collect = (chunk: Buffer) => {
            text += chunk.toString();
            if (/^ {2}Admins.*$/m.test(text)) resolve(text);
          };
          child.stdout.on('data', collect);
          child.stderr.on('data', collect);
          child.on('close', () => reject(new Error(`no banner: ${text}`)));
        });
      } finally {
        const closed = new Promise((resolve) => child.once('close', resolve));
        child.kill();
        await closed;
      }
    };
    configure({});
    assert.match(await banner(), /Admins +nobody, unless a token has the claim "org_admin" \(docs\/sign-in\.md/);
    assert.match(await examine(), /warning +users +Nobody is an Organization Administrator/);
    configure(keycloakSettings);
    assert.match(await banner(), /Admins +whoever has the role "offshoot-admin"/);
    const users = path.join(folder, 'data', 'users.json');
    const data = JSON.parse(readFileSync(users, 'utf8')) as { users: object[] };
    const ada = { ...people.admin, issuer: issuer.url };
    writeFileSync(users, JSON.stringify({ ...data, users: [...data.users, ada] }));
    assert.match(await examine(), /ok +users +Organization Administrators: .*"offshoot-admin"; 1 of users\.json/);
  });
});

describe('A configuration of issuers', () => {
  test('with roles but no claim for them, or with an unknown tier, is refused with what is missing', async (t) => {
    const installation = await Installation.create('sqlite');
    t.after(() => installation.remove());
    const issuer = { issuer: 'https://a.example', audience: 'a', algorithms: ['RS256' as const] } as IssuerInput;
    const faultsOf = (settings: Partial<IssuerInput>): string => {
      try {
        installation.config({ issuers: [{ ...issuer, ...settings }] });
        return '';
      } catch (error) {
        assert.ok(error instanceof ConfigError);
        return error.faults.join('\n');
      }
    };
    assert.match(faultsOf({ administratorRoles: ['a'] }), /issuers\.0\.rolesClaims is missing/);
    assert.match(faultsOf({ rolesClaims: ['r'], tierRoles: { a: 'Gold' } }), /role 'a' the tier 'Gold'/);
    assert.match(faultsOf({ userIdClaim: '' }), /userIdClaim/);
    assert.equal(faultsOf({ ...entraSettings }), '');
  });
});
