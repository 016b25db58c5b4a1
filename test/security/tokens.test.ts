/** Attacks with tokens that a trusted issuer signed for another purpose, or that only claim to be of a trusted issuer. */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { generateKeyPair } from 'jose';
import { coolDownMs, issuerKeys, IssuerUnavailableError } from '../../apps/server/src/access/issuerKeys.ts';
import { Api, type WireError } from '../support/api.ts';
import { startOidcIssuer, type OidcIssuer } from '../support/oidcIssuer.ts';
import { bootServer, endServer, type TestServer } from '../support/server.ts';

describe('A token of a trusted issuer', () => {
  let issuer: OidcIssuer;
  let strict: OidcIssuer;
  let server: TestServer;

  before(async () => {
    [issuer, strict] = [await startOidcIssuer(), await startOidcIssuer()];
    server = await bootServer('sqlite', {
      requiredScope: null,
      issuers: [issuer.settings, { ...strict.settings, tokenType: 'at+jwt' }],
    });
  });
  after(async () => {
    await endServer(server);
    issuer.close();
    strict.close();
  });

  const ask = async (token: string) => {
    const { status, body } = await new Api(server.origin, token).get('/itwins');
    return [status, (body as Partial<WireError>).error?.code];
  };

  test('whose subject is not a string is refused with 401, never with a server error', async () => {
    for (const sub of [{}, { id: 'x' }, [], ['a'], 7, 0, true, null, '', 'a\0b', 'a\nb', '\ud800', 'x'.repeat(256)])
      assert.deepEqual(await ask(await issuer.token({ sub })), [401, 'Unauthorized'], JSON.stringify(sub));
    assert.deepEqual(await ask(await issuer.token({})), [401, 'Unauthorized']);
    assert.deepEqual(await ask(await issuer.token({ sub: 'plain' })), [200, undefined]);
  });

  test('whose other claims have any type is verified without a server error', async () => {
    for (const odd of [{}, [], 7, true, null, '', 'a\0b', '\ud800', 'x'.repeat(3000)])
      for (const claim of [
        'email',
        'email_verified',
        'given_name',
        'family_name',
        'preferred_username',
        'name',
        'client_id',
        'azp',
        'org',
        'org_admin',
        'scope',
        'iss',
        'aud',
        'exp',
        'nbf',
        'typ',
        'jti',
      ]) {
        const [status = 0] = await ask(await issuer.token({ sub: 'plain', [claim]: odd }));
        assert.ok(status === 200 || status === 401, `${claim} ${JSON.stringify(odd)}: ${status}`);
      }
  });

  test('that is an ID, refresh or logout token is refused as an access token', async () => {
    const sub = randomUUID();
    for (const [claims, header] of [
      [{ typ: 'ID' }, {}],
      [{ typ: 'Refresh' }, { typ: 'JWT' }],
      [{ at_hash: 'x' }, {}],
      [{ c_hash: 'x' }, { typ: 'JWT' }],
      [{}, { typ: 'logout+jwt' }],
      [{}, { typ: 'dpop+jwt' }],
      [{}, { typ: 'secevent+jwt' }],
      [{}, { typ: 7 as unknown as string }],
    ] as const)
      assert.deepEqual(
        await ask(await issuer.token({ sub, ...claims }, { header })),
        [401, 'Unauthorized'],
        JSON.stringify([claims, header]),
      );
    for (const [claims, header] of [
      [{}, {}],
      [{ typ: 'Bearer' }, { typ: 'JWT' }],
      [{}, { typ: 'at+jwt' }],
      [{}, { typ: 'application/at+JWT' }],
    ] as const)
      assert.deepEqual(
        await ask(await issuer.token({ sub, ...claims }, { header })),
        [200, undefined],
        JSON.stringify([claims, header]),
      );
  });

  test('of a type other than configured for its issuer is refused', async () => {
    assert.deepEqual(await ask(await strict.token({ sub: 'x' }, { header: { typ: 'JWT' } })), [401, 'Unauthorized']);
    assert.deepEqual(await ask(await strict.token({ sub: 'x' })), [401, 'Unauthorized']);
    assert.deepEqual(await ask(await strict.token({ sub: 'x' }, { header: { typ: 'at+jwt' } })), [200, undefined]);
  });
});

describe('Forged tokens of an issuer that does not answer', () => {
  test('cost one request to it in total, and get Retry-After', async () => {
    const issuer = await startOidcIssuer();
    issuer.broken = true;
    const server = await bootServer('sqlite', { issuers: [issuer.settings] });
    try {
      const { privateKey } = await generateKeyPair('ES256');
      for (let round = 0; round < 5; round++) {
        const forged = await Promise.all(
          Array.from({ length: 10 }, (_, n) =>
            issuer.token({ sub: `${round} ${n}` }, { key: privateKey, header: { kid: randomUUID() } }),
          ),
        );
        const answers = await Promise.all(forged.map((token) => new Api(server.origin, token).get('/itwins')));
        for (const { status, headers } of answers)
          assert.deepEqual([status, Number(headers.get('retry-after')) >= 1], [503, true]);
      }
      // A second request only if the first wait was over already, on a very slow machine.
      assert.ok(issuer.requests.length <= 2, `${issuer.requests.length} requests`);
    } finally {
      await endServer(server);
      issuer.close();
    }
  });

  test('do not affect tokens with known keys, and the issuer is queried again after the wait', async () => {
    const issuer = await startOidcIssuer();
    try {
      let now = 0;
      const keys = issuerKeys(issuer.settings, () => now);
      const keyOf = async (kid: string) => keys({ alg: 'ES256', kid }, { payload: '', signature: '' });
      issuer.broken = true;
      await assert.rejects(keyOf('one'), IssuerUnavailableError);
      issuer.broken = false;
      await assert.rejects(keyOf('one'), (error: IssuerUnavailableError) => error.waitMs === coolDownMs);
      assert.equal(issuer.requests.length, 1);
      now += coolDownMs;
      await keyOf('one');
      assert.equal(issuer.requests.length, 3);
      issuer.broken = true;
      // Unknown keys are queried at most once in the library's own 30 s; known keys stay valid.
      for (let n = 0; n < 20; n++) await assert.rejects(keyOf(randomUUID()));
      await keyOf('one');
      assert.equal(issuer.requests.length, 3);
    } finally {
      issuer.close();
    }
  });
});
