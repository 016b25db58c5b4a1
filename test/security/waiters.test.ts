/**
 * Attacks on the connections to PostgreSQL, by a user whose requests wait for a locked row: nobody else waits with them, nothing
 * is answered with 500, and the server still reports that it is ready.
 */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import pg from 'pg';
import { sql } from 'kysely';
import {
  ConnectionLimitError,
  ConnectionLimits,
  onBehalfOf,
} from '../../apps/server/src/db/postgres/connectionLimits.ts';
import type { Answer, WireError } from '../support/api.ts';
import { makeIModel, official, type Official } from '../support/clients.ts';
import { bootServer, endServer, engines, type TestServer } from '../support/server.ts';
import { until } from '../support/until.ts';

const skip = engines.includes('postgres') ? false : 'there is no PostgreSQL';

describe('Requests that wait for a locked iModel', { skip }, () => {
  let server: TestServer;
  let eve: Official;
  let olivia: Official;
  let locker: pg.Client;
  before(async () => {
    server = await bootServer('postgres', { databasePool: 8, databaseLockSeconds: 30, databaseWaitSeconds: 30 });
    [eve, olivia] = [await official(server, 'eve'), await official(server)];
    locker = new pg.Client({ connectionString: server.installation.databaseUrl });
    await locker.connect();
  });
  after(async () => {
    await locker.end();
    await endServer(server);
  });

  /** Locks an iModel like a slow transaction. */
  async function lock(iModelId: string): Promise<void> {
    await locker.query('begin');
    await locker.query('select id from imodel where id = $1 for update', [iModelId]);
  }
  const unlock = () => locker.query('rollback');
  // On another connection than the lock: within a transaction this table is a snapshot.
  const waiting = async (): Promise<number> => {
    const { rows } = await sql<{
      count: number;
    }>`select count(*) as count from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`.execute(
      server.services.database.watchDb,
    );
    return rows[0]?.count ?? 0;
  };

  test('leave connections for everybody else, and for the readiness check', { timeout: 120_000 }, async () => {
    const locked = await makeIModel(eve, await server.iTwin('eve'));
    const other = await makeIModel(olivia, await server.iTwin());
    const [attacker, api] = [await server.as('eve'), await server.as('olivia')];
    await lock(locked.id);
    const attacks: Promise<Answer>[] = [];
    try {
      for (let n = 0; n < 60; n++)
        attacks.push(attacker.patch(`/imodels/${locked.id}`, { description: `attack ${n}` }));
      await until('the waiters', async () => ((await waiting()) >= 4 ? true : undefined));
      for (let n = 0; n < 10; n++) {
        const answers = await Promise.all([
          api.get(`/imodels/${other.id}`),
          api.patch(`/imodels/${other.id}`, { description: `work ${n}` }),
          api.post('/imodels', { iTwinId: await server.iTwin(), name: randomUUID() }),
        ]);
        assert.deepEqual(
          answers.map(({ status }) => status),
          [200, 200, 201],
        );
        assert.equal((await fetch(`${server.origin}/health/ready`)).status, 200);
      }
      assert.equal(await waiting(), 4, 'half of the connections of the pool');
    } finally {
      await unlock();
    }
    assert.deepEqual(new Set((await Promise.all(attacks)).map(({ status }) => status)), new Set([200]));
  });

  test(
    'leave connections for others also when they come from several users of one organization',
    { timeout: 120_000 },
    async () => {
      const iTwinId = await server.iTwin('eve');
      await server.grant(iTwinId, 'foreignAdmin', ['imodels_manage'], 'eve');
      const locked = [await makeIModel(eve, iTwinId, { name: 'one' }), await makeIModel(eve, iTwinId, { name: 'two' })];
      const other = await makeIModel(olivia, await server.iTwin());
      const api = await server.as('olivia');
      const attackers = [await server.as('eve'), await server.as('foreignAdmin')];
      await locker.query('begin');
      await locker.query('select id from imodel where id = any($1) for update', [locked.map(({ id }) => id)]);
      const attacks: Promise<Answer>[] = [];
      try {
        for (let n = 0; n < 20; n++)
          for (const [index, attacker] of attackers.entries())
            attacks.push(attacker.patch(`/imodels/${locked[index]?.id}`, { description: String(n) }));
        await until('the waiters', async () => ((await waiting()) >= 6 ? true : undefined));
        const answers = await Promise.all(
          Array.from({ length: 20 }, (_, n) => api.patch(`/imodels/${other.id}`, { description: String(n) })),
        );
        assert.deepEqual(new Set(answers.map(({ status }) => status)), new Set([200]));
        assert.equal(await waiting(), 6, 'three quarters of the connections of the pool');
      } finally {
        await unlock();
      }
      await Promise.all(attacks);
    },
  );

  test(
    'of callers without permission take no connection from those with permission',
    { timeout: 120_000 },
    async () => {
      const { id } = await makeIModel(olivia, await server.iTwin());
      const [attacker, api] = [await server.as('eve'), await server.as('olivia')];
      const attacks = Promise.all(
        Array.from({ length: 90 }, () => attacker.patch(`/imodels/${id}`, { description: 'attack' })),
      );
      const answers = await Promise.all(
        Array.from({ length: 20 }, () => api.patch(`/imodels/${id}`, { description: 'work' })),
      );
      assert.deepEqual(new Set(answers.map(({ status }) => status)), new Set([200]));
      assert.deepEqual(new Set((await attacks).map(({ status }) => status)), new Set([404]));
    },
  );
});

describe('A request that waits for a locked row for too long', { skip }, () => {
  test('answers 503 with Retry-After, also when it waited for a connection', { timeout: 120_000 }, async () => {
    const server = await bootServer('postgres', {
      databasePool: 4,
      databaseLockSeconds: 0.5,
      databaseWaitSeconds: 1,
    });
    const locker = new pg.Client({ connectionString: server.installation.databaseUrl });
    await locker.connect();
    try {
      const { id } = await makeIModel(await official(server), await server.iTwin());
      const api = await server.as('olivia');
      await locker.query('begin');
      await locker.query('select id from imodel where id = $1 for update', [id]);
      const answers = await Promise.all(
        Array.from({ length: 30 }, (_, n) => api.patch(`/imodels/${id}`, { description: String(n) })),
      );
      assert.deepEqual(
        new Set(answers.map(({ status, body }) => `${status} ${(body as WireError).error.code}`)),
        new Set(['503 Unavailable']),
      );
      for (const { headers } of answers) assert.match(headers.get('retry-after') ?? '', /^[1-9]\d*$/);
      await locker.query('rollback');
      assert.equal((await api.patch(`/imodels/${id}`, { description: 'afterwards' })).status, 200);
    } finally {
      await locker.end();
      await endServer(server);
    }
  });

  test(
    'does not keep the server from reporting that its database answers when every connection is taken',
    { timeout: 60_000 },
    async () => {
      const server = await bootServer('postgres', { databasePool: 2, databaseWaitSeconds: 20 });
      const { db } = server.services.database;
      let end!: () => void;
      const held = new Promise<void>((resolve) => (end = resolve));
      try {
        let holding = 0;
        const holders = [1, 2].map(() =>
          db.transaction().execute(async (tx) => {
            await sql`select 1`.execute(tx);
            holding++;
            await held;
          }),
        );
        await until('the taken connections', () => (holding === 2 ? true : undefined));
        assert.equal((await fetch(`${server.origin}/health/ready`)).status, 200);
        end();
        await Promise.all(holders);
      } finally {
        end();
        await endServer(server);
      }
    },
  );
});

describe('The connection limit of a tenant', () => {
  const party = (userId: string, subject?: string) => ({ organizationId: 'organization', userId, subject });

  test('grants connections in order of arrival to requests within their limits, and counts each request once', async () => {
    const limits = new ConnectionLimits(8, 10_000);
    const enter = (userId: string, subject?: string) => onBehalfOf(party(userId, subject), () => limits.enter());
    const leaves = await Promise.all([1, 2, 3, 4].map(() => enter('a')));
    const order: string[] = [];
    const fifth = enter('a').then((leave) => (order.push('a'), leave));
    const other = enter('b').then((leave) => (order.push('b'), leave));
    await other;
    assert.deepEqual(order, ['b']);
    leaves[0]?.();
    (await fifth)();
    assert.deepEqual(order, ['b', 'a']);
    // A request that has a connection gets more without waiting, since it would wait for itself.
    await onBehalfOf(party('c'), async () => {
      const own = await Promise.all(Array.from({ length: 20 }, () => limits.enter()));
      for (const leave of own) leave();
    });
  });

  test('refuses the hundred and first waiting request of a user, and any that waits too long', async () => {
    const limits = new ConnectionLimits(2, 300);
    const enter = () => onBehalfOf(party('a'), () => limits.enter());
    const leave = await enter();
    const waiting = Array.from({ length: 100 }, () => assert.rejects(enter(), ConnectionLimitError));
    const begunAt = performance.now();
    await assert.rejects(enter(), ConnectionLimitError);
    assert.ok(performance.now() - begunAt < 250, 'at once');
    await Promise.all(waiting);
    leave();
    (await enter())();
  });
});
