import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { mock, test } from 'node:test';
import type { Answer, WireError } from './support/api.ts';
import { makeIModel } from './support/clients.ts';
import { onEachDatabase } from './support/suite.ts';

const tooMany = {
  error: {
    code: 'RateLimitExceeded',
    message: 'The client sent more requests than allowed by this API for the current tier of the client.',
  },
};

function assertLimited(answer: Answer, tier: string, operation: string, application: string): void {
  assert.equal(answer.status, 429);
  assert.deepEqual(answer.body, tooMany);
  const retryAfter = answer.headers.get('retry-after') ?? '';
  assert.match(retryAfter, /^[1-9]\d*$/);
  assert.ok(Number(retryAfter) <= 60);
  assert.equal(answer.headers.get('itwinplatform-ratelimited-tier'), tier);
  assert.equal(answer.headers.get('itwinplatform-ratelimited-api'), 'iModels');
  assert.equal(answer.headers.get('itwinplatform-ratelimited-operation'), operation);
  assert.equal(answer.headers.get('itwinplatform-ratelimited-application'), application);
}

onEachDatabase('The limit on clones', {}, (context) => {
  for (const [application, tier, allowed] of [
    ['trial-app', 'Trial', 5],
    ['basic-app', 'Basic', 20],
    ['premium-app', 'Premium', 20],
    ['enterprise-app', 'Enterprise', 20],
  ] as const) {
    test(`is ${allowed} a minute for the ${tier} tier, and the next request gets Retry-After`, async () => {
      const made = await makeIModel(context.olivia, context.iTwinId);
      const api = await context.server.as('olivia', application);
      const clone = () => api.post(`/imodels/${made.id}/clone`, { iTwinId: context.iTwinId, name: randomUUID() });
      for (let n = 0; n < allowed; n++) assert.equal((await clone()).status, 202, `clone ${n + 1}`);
      assertLimited(await clone(), tier, 'clone-imodel', application);
      // It affects no other request and no other application.
      assert.equal((await api.get(`/imodels/${made.id}`)).status, 200);
      assert.equal(
        (await context.api.post(`/imodels/${made.id}/clone`, { iTwinId: context.iTwinId, name: randomUUID() })).status,
        202,
      );
    });
  }

  test('survives a restart, and applies across all servers of an installation', async () => {
    const made = await makeIModel(context.olivia, context.iTwinId);
    await context.server.close();
    const { installation } = context.server;
    let server = await installation.start();
    const clone = async (): Promise<Answer> =>
      (await server.as('olivia', 'trial-app')).post(`/imodels/${made.id}/clone`, {
        iTwinId: context.iTwinId,
        name: randomUUID(),
      });
    const before = (await clone()).status;
    assert.equal(before, 429); // The trial application used its five in the test above.
    if (context.engine === 'postgres') {
      const second = await installation.start();
      const answer = await (
        await second.as('olivia', 'trial-app')
      ).post(`/imodels/${made.id}/clone`, { iTwinId: context.iTwinId, name: randomUUID() });
      await second.close();
      assertLimited(answer, 'Trial', 'clone-imodel', 'trial-app');
    }
    await server.close();
    server = await installation.start();
    context.server = server;
  });
});

onEachDatabase(
  'The general limit',
  {
    tiers: {
      Unlimited: { general: [{ requests: 30, seconds: 60 }], operations: {} },
      Enterprise: { general: [], operations: {} },
    },
  },
  (context) => {
    test('counts all requests of an application, including refused ones', async () => {
      const answers: Answer[] = [];
      for (let n = 0; n < 40; n++)
        answers.push(await context.api.get(n % 2 === 0 ? '/itwins' : `/imodels/${randomUUID()}`));
      const limited = answers.filter(({ status }) => status === 429);
      // Creating the iTwin of this suite was a request too.
      assert.equal(limited.length, 11);
      assertLimited(
        limited[0] as Answer,
        'Unlimited',
        limited[0] === answers.at(-10) ? 'get-my-itwins' : 'get-imodel-details',
        'suite',
      );
      assert.equal((await (await context.server.as('olivia', 'enterprise-app')).get('/itwins')).status, 200);
      assert.equal((limited[0]?.body as WireError).error.code, 'RateLimitExceeded');
    });
  },
);

onEachDatabase(
  'A window',
  {
    tiers: {
      Unlimited: { general: [{ requests: 1000, seconds: 60 }], operations: {} },
      Trial: { general: [{ requests: 3, seconds: 60 }], operations: {} },
      Enterprise: { general: [], operations: {} },
    },
  },
  (context) => {
    test('lasts no longer than intended when a fast clock is set back', async () => {
      const api = await context.server.as('olivia', 'trial-app');
      const ask = async (): Promise<Answer> => api.get('/itwins');
      const real = Date.now;
      const ahead = mock.method(Date, 'now', () => real() + 1_800_000);
      try {
        for (let n = 0; n < 3; n++) assert.equal((await ask()).status, 200);
        assertLimited(await ask(), 'Trial', 'get-my-itwins', 'trial-app');
      } finally {
        ahead.mock.restore();
      }
      // PostgreSQL uses its own clock, which was right all the time; SQLite starts the window again.
      if (context.engine === 'postgres') assertLimited(await ask(), 'Trial', 'get-my-itwins', 'trial-app');
      else assert.equal((await ask()).status, 200);
    });
  },
);
