import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { readFileSync, utimesSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { exportJWK, generateKeyPair, importJWK, SignJWT, UnsecuredJWT, type CryptoKey } from 'jose';
import type { ConfigInput } from '../apps/server/src/config.ts';
import { Directory, type DirectoryData } from '../apps/server/src/access/directory.ts';
import { Api, type WireError } from './support/api.ts';
import { all, makeIModel, official } from './support/clients.ts';
import { bootServer, endServer, Installation, people, type TestServer } from './support/server.ts';
import { onEachDatabase } from './support/suite.ts';

const refusedToken = {
  error: {
    code: 'Unauthorized',
    message:
      'Access denied due to invalid access_token. Make sure that issuer is correct, the token is not expired and is not corrupted.',
  },
};

onEachDatabase('Tokens', {}, (context) => {
  const ask = (authorization: string | undefined) =>
    new Api(context.server.origin).get('/itwins', authorization === undefined ? {} : { authorization });

  test('a missing, empty or malformed Authorization header gets its own error message', async () => {
    const missing = await ask(undefined);
    assert.deepEqual(
      [missing.status, missing.body],
      [
        401,
        {
          error: {
            code: 'HeaderNotFound',
            message: 'Header Authorization was not found in the request. Access denied.',
          },
        },
      ],
    );
    const empty = await ask('');
    assert.deepEqual(
      [empty.status, empty.body],
      [401, { error: { code: 'InvalidHeaderValue', message: 'Authorization header is empty.' } }],
    );
    const digest = await ask('Digest abc');
    assert.deepEqual(
      [digest.status, digest.body],
      [401, { error: { code: 'InvalidAuthorizationScheme', message: "Authorization scheme 'Digest' is not valid." } }],
    );
    const noShare = await ask('Basic abc');
    assert.deepEqual([noShare.status, noShare.body], [401, refusedToken]);
  });

  test('a token of no known issuer is refused with the error code that clients compare', async () => {
    const good = await context.server.token('olivia');
    const [header = '', payload = '', signature = ''] = good.split('.');
    const forged = Buffer.from(
      JSON.stringify({ ...(JSON.parse(Buffer.from(payload, 'base64url').toString()) as object), sub: people.admin.id }),
    ).toString('base64url');
    const claims = { client_id: 'suite', scope: 'itwin-platform' };
    const { privateKey } = await generateKeyPair('ES256');
    const signed = (issuer: string, key: CryptoKey) =>
      new SignJWT(claims)
        .setProtectedHeader({ alg: 'ES256' })
        .setIssuer(issuer)
        .setAudience('offshoot')
        .setSubject(people.olivia.id)
        .setExpirationTime('1h')
        .sign(key);
    const none = new UnsecuredJWT(claims)
      .setIssuer(context.server.issuer.issuer)
      .setAudience('offshoot')
      .setSubject(people.olivia.id)
      .setExpirationTime('1h')
      .encode();
    const publicKey = Buffer.from(JSON.stringify(await exportJWK(context.server.issuer.publicKey)));
    const confused = await new SignJWT(claims)
      .setProtectedHeader({ alg: 'HS256' })
      .setIssuer(context.server.issuer.issuer)
      .setAudience('offshoot')
      .setSubject(people.olivia.id)
      .setExpirationTime('1h')
      .sign(publicKey);
    const tokens = {
      'not a token': 'invalid token',
      'an empty token': '',
      'a payload changed after signing': `${header}.${forged}.${signature}`,
      'a signature cut off': `${header}.${payload}.`,
      'alg none': none,
      'the public key used as a shared secret': confused,
      'another key under our name': await signed(context.server.issuer.issuer, privateKey),
      'another issuer': await signed('https://issuer.example', privateKey),
      'an expired one': await context.server.token('olivia', 'suite', -60),
    };
    for (const [what, token] of Object.entries(tokens)) {
      const answer = await ask(`Bearer ${token}`);
      assert.deepEqual([answer.status, answer.body], [401, refusedToken], what);
    }
    assert.equal((await ask(`Bearer ${good}`)).status, 200);
    assert.equal((await ask(`bearer ${good}`)).status, 200);
  });

  test('a token without the required scope is refused with that reason', async () => {
    const token = await context.server.issuer.mint(people.olivia, {
      applicationId: 'suite',
      scope: 'openid email',
      lifeSeconds: 60,
    });
    const answer = await ask(`Bearer ${token}`);
    assert.deepEqual([answer.status, (answer.body as WireError).error.code], [401, 'RequiredScopeMissing']);
  });

  test('an application with an unknown tier is refused', async () => {
    const answer = await ask(`Bearer ${await context.server.token('olivia', 'lost-app')}`);
    assert.deepEqual([answer.status, (answer.body as WireError).error.code], [401, 'InvalidApplicationTier']);
  });

  test('a 401 takes precedence over every other error of the request', async () => {
    const nobody = new Api(context.server.origin);
    for (const [method, url] of [
      ['GET', `/imodels/${randomUUID()}`],
      ['POST', '/imodels'],
      ['POST', '/imodels/invalid/clone'],
      ['GET', '/imodels?iTwinId=abc'],
    ] as const)
      assert.equal((await nobody.send(method, url, method === 'POST' ? '{' : undefined)).status, 401);
  });

  test('a user who is removed from the users file loses access', async (t) => {
    const file = path.join(context.server.installation.dataDir, 'users.json');
    const all = readFileSync(file, 'utf8');
    t.after(() => writeFileSync(file, all));
    const data = JSON.parse(all) as DirectoryData;
    const token = await context.server.token('max');
    assert.equal((await ask(`Bearer ${token}`)).status, 200);
    writeFileSync(file, JSON.stringify({ ...data, users: data.users.filter(({ id }) => id !== people.max.id) }));
    const later = Date.now() + 2000;
    t.mock.method(Date, 'now', () => later);
    assert.equal((await ask(`Bearer ${token}`)).status, 401);
    // An invalid file does not lock everybody out: the last valid version stays in force.
    writeFileSync(file, '{ broken');
    const evenLater = later + 2000;
    t.mock.method(Date, 'now', () => evenLater);
    assert.equal((await ask(`Bearer ${await context.server.token('olivia')}`)).status, 200);
  });
});

onEachDatabase('An Organization Administrator of several organizations', {}, (context) => {
  test('clones from one organization into another and administers the iTwins of both', async () => {
    const theirs = await context.server.iTwin('eve');
    const source = await makeIModel(context.olivia, context.iTwinId, { changesets: 2 });
    // An administrator of only one of the two organizations may not.
    for (const who of ['admin', 'foreignAdmin'] as const) {
      const one = await context.server.as(who);
      assert.equal((await one.post(`/imodels/${source.id}/clone`, { iTwinId: theirs })).status, 404, who);
    }
    const { client, authorization } = await official(context.server, 'consultant');
    const clone = await client.iModels.clone({
      authorization,
      iModelId: source.id,
      iModelProperties: { iTwinId: theirs, name: 'across' },
    });
    assert.equal(clone.iTwinId, theirs);
    assert.equal((await all(client.changesets.getMinimalList({ authorization, iModelId: clone.id }))).length, 2);
    const consultant = await context.server.as('consultant');
    const { iTwins } = (await consultant.get('/itwins?$top=1000')).body as { iTwins: { id: string }[] };
    assert.ok([theirs, context.iTwinId].every((id) => iTwins.some((iTwin) => iTwin.id === id)));
    assert.equal((await consultant.delete(`/itwins/${await context.server.iTwin('olivia')}`)).status, 204);
    assert.equal((await consultant.delete(`/itwins/${theirs}`)).status, 204);
  });
});

describe('A users file with more than one entry of the same user, organization or application', () => {
  const changes: Record<string, (data: DirectoryData) => DirectoryData> = {
    'the same user': (data) => ({
      ...data,
      users: [...data.users, { ...people.max, email: 'other@example.test', organizationId: people.eve.organizationId }],
    }),
    'the same e-mail in other letters': (data) => ({
      ...data,
      users: [...data.users, { ...people.max, id: randomUUID(), email: people.max.email.toUpperCase() }],
    }),
    'the same organization': (data) => ({
      ...data,
      organizations: [...data.organizations, { id: people.max.organizationId, name: 'Again' }],
    }),
    'the same application': (data) => ({
      ...data,
      applications: [...data.applications, { id: 'suite', name: 'Again', tier: 'Trial' }],
    }),
  };
  for (const [what, change] of Object.entries(changes)) {
    test(`is refused at startup and reported while the server runs: ${what}`, async (t) => {
      const installation = await Installation.create('sqlite');
      t.after(() => installation.remove());
      const file = path.join(installation.dataDir, 'users.json');
      const good = JSON.parse(readFileSync(file, 'utf8')) as DirectoryData;
      const faults: string[] = [];
      const directory = Directory.open(installation.dataDir, (message) => faults.push(message));
      const bad = change(good);
      writeFileSync(file, JSON.stringify({ ...bad, users: bad.users.filter(({ id }) => id !== people.eve.id) }));
      utimesSync(file, new Date(), new Date(Date.now() + 5000));
      const later = Date.now() + 2000;
      t.mock.method(Date, 'now', () => later);
      // The last valid file stays in force as a whole.
      assert.notEqual(directory.findUserById(people.eve.id), undefined);
      assert.deepEqual(directory.data, good);
      assert.match(faults.join(), /more than one/);
      t.mock.restoreAll();
      await assert.rejects(installation.start(), /users\.json cannot be used: .*more than one/);
    });
  }
});

describe('An OpenID Connect issuer', () => {
  let issuer: Server;
  let url: string;
  let keys: { privateKey: CryptoKey; publicKey: CryptoKey };
  let server: TestServer;
  let discoveries = 0;

  before(async () => {
    keys = await generateKeyPair('RS256', { extractable: true });
    // Without `alg`, as some providers publish keys: only the configuration decides which algorithms are accepted.
    const jwk = { ...(await exportJWK(keys.publicKey)), kid: 'one', use: 'sig' };
    issuer = createServer((request, response) => {
      response.setHeader('content-type', 'application/json');
      if (request.url === '/.well-known/openid-configuration') {
        discoveries++;
        response.end(JSON.stringify({ issuer: url, jwks_uri: `${url}/keys` }));
      } else response.end(JSON.stringify({ keys: [jwk] }));
    });
    await new Promise<void>((resolve) => issuer.listen(0, '127.0.0.1', resolve));
    url = `http://127.0.0.1:${(issuer.address() as AddressInfo).port}`;
    server = await bootServer('sqlite', {
      issuers: [
        {
          issuer: url,
          audience: 'https://imodels.example',
          algorithms: ['RS256'],
          organizationClaim: 'org',
          administratorClaim: 'org_admin',
        },
        {
          issuer: 'http://127.0.0.1:1',
          audience: 'x',
          algorithms: ['RS256'],
          organizationClaim: 'org',
          administratorClaim: 'org_admin',
        },
      ],
    });
  });
  after(async () => {
    await endServer(server);
    issuer.close();
  });

  const token = (
    claims: object,
    options: { audience?: string; issuer?: string; key?: CryptoKey } = {},
  ): Promise<string> =>
    new SignJWT({ scope: 'openid itwin-platform', client_id: 'spa', ...claims })
      .setProtectedHeader({ alg: 'RS256', kid: 'one' })
      .setIssuer(options.issuer ?? url)
      .setAudience(options.audience ?? 'https://imodels.example')
      .setExpirationTime('1h')
      .sign(options.key ?? keys.privateKey);

  test('is discovered, and its claims identify users and their organizations', async () => {
    const sub = randomUUID();
    const api = new Api(
      server.origin,
      await token({
        sub,
        email: 'ada@example.test',
        email_verified: true,
        given_name: 'Ada',
        family_name: 'Lovelace',
        org: 'org-1',
      }),
    );
    const { iTwin } = (
      await api.post('/itwins', { displayName: 'From outside', class: 'Endeavor', subClass: 'Project' })
    ).body as { iTwin: { id: string; iTwinAccountId: string; createdBy: string } };
    assert.deepEqual([iTwin.iTwinAccountId, iTwin.createdBy], ['org-1', sub]);
    const { iModel } = (await api.post('/imodels', { iTwinId: iTwin.id, name: 'theirs' })).body as {
      iModel: { id: string };
    };
    const { user } = (await api.get(`/imodels/${iModel.id}/users/${sub}`)).body as { user: Record<string, unknown> };
    assert.deepEqual(
      [user['displayName'], user['givenName'], user['surname']],
      ['ada@example.test', 'Ada', 'Lovelace'],
    );
    const administrator = new Api(server.origin, await token({ sub: randomUUID(), org: 'org-1', org_admin: true }));
    assert.equal((await administrator.get(`/imodels/${iModel.id}`)).status, 200);
    const stranger = new Api(server.origin, await token({ sub: randomUUID(), org: 'org-2', org_admin: true }));
    assert.equal((await stranger.get(`/imodels/${iModel.id}`)).status, 404);
    // Several organizations: a list of those administered, or true for all organizations of the user.
    for (const [claims, status] of [
      [{ org: 'org-2', org_admin: ['org-2', 'org-1'] }, 200],
      [{ org: ['org-2', 'org-1'], org_admin: true }, 200],
      [{ org: ['org-1', 'org-2'], org_admin: ['org-2'] }, 404],
      [{ org: ['org-1'], org_admin: false }, 404],
      [{ org: 'org-1', org_admin: [true, null, 5] }, 404],
    ] as const)
      assert.equal(
        (await new Api(server.origin, await token({ sub: randomUUID(), ...claims })).get(`/imodels/${iModel.id}`))
          .status,
        status,
        JSON.stringify(claims),
      );
    assert.equal(discoveries, 1);
  });

  test('entries of the users file match verified e-mails, never unverified ones', async () => {
    const iTwinId = await server.iTwin('olivia');
    const known = async (claims: object): Promise<number> =>
      (await new Api(server.origin, await token(claims)).get(`/itwins/${iTwinId}`)).status;
    const { email } = people.admin;
    assert.equal(await known({ sub: randomUUID(), email, email_verified: true }), 200);
    assert.equal(await known({ sub: randomUUID(), email }), 404);
    assert.equal(await known({ sub: randomUUID(), email, email_verified: false }), 404);
    assert.equal(await known({ sub: email }), 404);
  });

  test(
    'a broken or unreachable issuer answers 503, so that clients retry, and does not invalidate tokens',
    { timeout: 60_000 },
    async () => {
      const broken: Record<string, Server> = {
        'keys that answer 500': createServer((_request, response) => response.writeHead(500).end()),
        'keys that are none': createServer((_request, response) =>
          response.setHeader('content-type', 'application/json').end('{}'),
        ),
        'keys that never come': createServer(() => undefined),
      };
      const issuers: NonNullable<ConfigInput['issuers']> = [];
      for (const server of Object.values(broken)) {
        await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
        const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
        issuers.push({
          issuer: address,
          jwksUri: `${address}/keys`,
          audience: 'https://imodels.example',
          algorithms: ['RS256' as const],
          organizationClaim: 'org',
          administratorClaim: 'org_admin',
        });
      }
      const other = await bootServer('sqlite', { issuers });
      try {
        await Promise.all(
          Object.keys(broken).map(async (what, n) => {
            const { status } = await new Api(
              other.origin,
              await token({ sub: randomUUID() }, { issuer: issuers[n]?.issuer ?? '' }),
            ).get('/itwins');
            assert.equal(status, 503, what);
          }),
        );
      } finally {
        await endServer(other);
        for (const server of Object.values(broken)) {
          server.closeAllConnections();
          server.close();
        }
      }
    },
  );

  test('tokens with another audience, an unknown key or no subject are refused', async () => {
    const other = await generateKeyPair('RS256');
    // The same key with an algorithm that is not configured.
    const key = await importJWK(await exportJWK(keys.privateKey), 'PS256');
    const otherAlgorithm = await new SignJWT({ scope: 'itwin-platform', sub: 'a' })
      .setProtectedHeader({ alg: 'PS256', kid: 'one' })
      .setIssuer(url)
      .setAudience('https://imodels.example')
      .setExpirationTime('1h')
      .sign(key);
    for (const bad of [
      otherAlgorithm,
      await token({ sub: 'a' }, { audience: 'https://other.example' }),
      await token({ sub: 'a' }, { key: other.privateKey }),
      await token({}),
    ]) {
      const answer = await new Api(server.origin, bad).get('/itwins');
      assert.deepEqual([answer.status, answer.body], [401, refusedToken]);
    }
  });

  test('an issuer whose keys cannot be fetched answers 503, because the token may be valid', async () => {
    const answer = await new Api(server.origin, await token({ sub: 'a' }, { issuer: 'http://127.0.0.1:1' })).get(
      '/itwins',
    );
    assert.equal(answer.status, 503);
  });
});
