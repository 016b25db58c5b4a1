import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { mock, test } from 'node:test';
import type { ConfigInput } from '../apps/server/src/config.ts';
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

const largeWindows: ConfigInput = {
  tiers: {
    Unlimited: { general: [{ requests: 1000, seconds: 60 }], operations: {} },
    Trial: { general: [{ requests: 400, seconds: 3600 }], operations: {} },
    Enterprise: { general: [{ requests: 400, seconds: 3600 }], operations: {} },
  },
  rateLimits: { userShare: 0 },
};

onEachDatabase('A large window', largeWindows, (context) => {
  /** Points that have been taken from the shared count of an application. */
  async function counted(application: string): Promise<number> {
    const { database } = context.server.services;
    const where = `from rate_limit where key like '%:${application}'`;
    if (database.pool !== undefined)
      return ((await database.pool.query({ text: `select points ${where}`, values: [] })).rows[0] as { points: number })
        .points;
    const file = new DatabaseSync(path.join(context.server.installation.dataDir, 'limits.db'), { readOnly: true });
    try {
      return (file.prepare(`select points ${where}`).get() as { points: number }).points;
    } finally {
      file.close();
    }
  }

  test('is counted in the database once for several requests', async () => {
    const api = await context.server.as('olivia', 'enterprise-app');
    for (let n = 1; n <= 9; n++) {
      assert.equal((await api.get('/itwins')).status, 200);
      assert.equal(await counted('enterprise-app'), n <= 8 ? 8 : 16);
    }
  });

  test('is never exceeded by the servers of an installation together', async () => {
    const servers = [
      context.server,
      ...(context.engine === 'postgres' ? [await context.server.installation.start(largeWindows)] : []),
    ];
    const statuses: number[] = [];
    await Promise.all(
      servers.map(async (server) => {
        const api = await server.as('olivia', 'trial-app');
        await Promise.all(
          Array.from({ length: 5 }, async () => {
            for (let n = 0; n < 90; n++) statuses.push((await api.get('/itwins')).status);
          }),
        );
      }),
    );
    for (const server of servers.slice(1)) await server.close();
    const accepted = statuses.filter((status) => status === 200).length;
    assert.equal(statuses.length - accepted, statuses.filter((status) => status === 429).length);
    // All points were taken by some server that had requests left to spend them on.
    assert.equal(accepted, 400);
  });
});
