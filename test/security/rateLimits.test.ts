/** Attacks by volume: by one user of an application that many share, and by an address that sends forged tokens or uses links. */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test } from 'node:test';
import { loadConfig } from '../../apps/server/src/config.ts';
import { senderOf } from '../../apps/server/src/http/addresses.ts';
import { Api, type Answer, type WireError } from '../support/api.ts';
import { makeIModel } from '../support/clients.ts';
import { onEachDatabase, onOneDatabase } from '../support/suite.ts';

const window = (requests: number) => ({ requests, seconds: 60 });
const tiers = {
  Unlimited: { general: [window(1_000_000)], operations: {} },
  Trial: { general: [window(40)], operations: { 'create-itwin': window(10) } },
  Basic: { general: [window(1_000_000)], operations: {} },
  Enterprise: { general: [], operations: {} },
};
const codeIn = ({ body }: Answer): string | undefined => (body as Partial<WireError> | undefined)?.error?.code;

onEachDatabase('An application that many users share', { tiers, rateLimits: { userShare: 0.1 } }, (context) => {
  test('is not exhausted for others by one user, neither in total nor for one operation', async () => {
    const greedy = await context.server.as('max', 'trial-app');
    const create = (api: Api) =>
      api.post('/itwins', { displayName: randomUUID(), class: 'Endeavor', subClass: 'Project' });
    for (let n = 0; n < 10; n++) assert.equal((await create(greedy)).status, 201);
    const refused = await create(greedy);
    assert.deepEqual(
      [refused.status, codeIn(refused), refused.headers.get('itwinplatform-ratelimited-application')],
      [429, 'RateLimitExceeded', 'trial-app'],
    );
    let allowed = 0;
    while ((await greedy.get('/itwins')).status === 200 && allowed < 100) allowed++;
    assert.ok(allowed < 40, `${allowed}`);
    for (const who of ['olivia', 'eve'] as const) {
      const other = await context.server.as(who, 'trial-app');
      assert.equal((await create(other)).status, 201, who);
      for (let n = 0; n < 3; n++) assert.equal((await other.get('/itwins')).status, 200, who);
      // Its share of the limit, and not more.
      assert.equal((await other.get('/itwins')).status, 429, who);
    }
    assert.equal((await greedy.get('/itwins')).status, 429);
  });
});

onOneDatabase(
  'An address behind a proxy',
  { trustProxy: true, rateLimits: { refused: window(5), links: window(5) } },
  (context) => {
    const from = (address: string) => ({ 'x-forwarded-for': address });

    test('that sends forged tokens is refused before they are verified, whatever its headers say, and no other address is', async () => {
      const forged = new Api(context.server.origin, 'forged');
      for (let n = 0; n < 5; n++)
        assert.equal((await forged.get('/itwins', from(`198.51.100.${n}, 203.0.113.1`))).status, 401);
      const refused = await forged.get('/itwins', from('198.51.100.99, 203.0.113.1'));
      assert.deepEqual(
        [refused.status, codeIn(refused), /^[1-9]\d*$/.test(refused.headers.get('retry-after') ?? '')],
        [429, 'RateLimitExceeded', true],
      );
      // Another address, and a user at the same one whose token was verified before.
      assert.equal((await forged.get('/itwins', from('203.0.113.2'))).status, 401);
      assert.equal((await context.api.get('/itwins', from('203.0.113.2'))).status, 200);
      assert.equal((await context.api.get('/itwins', from('203.0.113.1'))).status, 200);
      assert.equal((await (await context.server.as('max')).get('/itwins', from('203.0.113.1'))).status, 429);
      assert.equal((await (await context.server.as('max')).get('/itwins', from('203.0.113.3'))).status, 200);
    });

    test('has a separate limit on links', async () => {
      await makeIModel(context.olivia, context.iTwinId);
      const link = (address: string) =>
        new Api(context.server.origin).get(`/storage/blobs/${randomUUID()}/file`, from(address));
      for (let n = 0; n < 5; n++) assert.equal((await link('203.0.113.7')).status, 403);
      const refused = await link('203.0.113.7');
      assert.deepEqual(
        [refused.status, refused.headers.get('x-ms-error-code'), Number(refused.headers.get('retry-after')) >= 1],
        [429, 'TooManyRequests', true],
      );
      assert.equal((await link('203.0.113.8')).status, 403);
    });
  },
);

onOneDatabase(
  'A server without configured proxies',
  { rateLimits: { refused: window(5), links: window(5) } },
  (context) => {
    test('ignores forwarding headers, and does not count its own machine, so that a local proxy locks nobody out', async () => {
      const forged = new Api(context.server.origin, 'forged');
      for (let n = 0; n < 10; n++)
        assert.equal((await forged.get('/itwins', { 'x-forwarded-for': '203.0.113.1' })).status, 401);
      assert.equal((await context.api.get('/itwins')).status, 200);
    });
  },
);

onOneDatabase(
  'A chain of proxies',
  { trustProxy: ['127.0.0.0/8', '::1', '10.0.0.0/8'], rateLimits: { refused: window(5), links: window(5) } },
  (context) => {
    test('is skipped up to the first address that is not one of them', async () => {
      const forged = new Api(context.server.origin, 'forged');
      const ask = async (header: string) => (await forged.get('/itwins', { 'x-forwarded-for': header })).status;
      for (let n = 0; n < 5; n++) assert.equal(await ask(`198.51.100.${n}, 203.0.113.1, 10.1.1.${n}, 10.0.0.1`), 401);
      assert.deepEqual([await ask('203.0.113.1, 10.9.9.9'), await ask('203.0.113.2, 10.1.1.1')], [429, 401]);
    });
  },
);

test('accepts only addresses and networks as proxies', () => {
  for (const bad of ['10.0.0.0/33', 'proxy.example', '10.0.0', '::1/129', '10.0.0.0/8/8', ''])
    assert.throws(() => loadConfig({ trustProxy: [bad] }, { env: {} }), bad);
  assert.deepEqual(loadConfig({}, { env: { OFFSHOOT_TRUST_PROXY: '10.0.0.0/8, ::1' } }).trustProxy, [
    '10.0.0.0/8',
    '::1',
  ]);
  assert.equal(loadConfig({}, { env: { OFFSHOOT_TRUST_PROXY: 'true' } }).trustProxy, true);
});

test('counts an IPv6 sender as its /64 network, in any notation', () => {
  assert.equal(senderOf('2001:db8:1:2::1'), senderOf('2001:0DB8:0001:0002:aaaa:bbbb:cccc:dddd'));
  assert.notEqual(senderOf('2001:db8:1:2::1'), senderOf('2001:db8:1:3::1'));
  assert.equal(senderOf('2001:db8::1'), senderOf('2001:db8:0:0:1::'));
  assert.equal(senderOf('::ffff:203.0.113.1'), senderOf('203.0.113.1'));
  assert.equal(senderOf('fe80::1%eth0'), senderOf('fe80::2'));
});
