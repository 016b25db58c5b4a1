import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { sql } from 'kysely';
import type { Config } from '../apps/server/src/config.ts';
import { databaseFile, openDatabase, type Database } from '../apps/server/src/db/database.ts';
import { migrationsFor } from '../apps/server/src/db/migrations/index.ts';
import { times } from './support/effort.ts';
import { ServerProcess } from './support/serverProcess.ts';
import { makeOldDatabase, oldIModelId, oldRows } from './support/oldDatabase.ts';
import { engines, Installation, people } from './support/server.ts';

const upgradeProcess = fileURLToPath(new URL('./support/upgradeProcess.ts', import.meta.url));

/** Opens a database in a separate process. @param killAfterMs from its start; it may have finished by then. @returns its duration, ms */
async function upgrade(config: Config, killAfterMs?: number): Promise<number> {
  const child = fork(upgradeProcess, [JSON.stringify(config)], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
  const ended = new Promise<number | null>((resolve) => child.once('exit', resolve));
  await new Promise((resolve) => child.once('message', resolve));
  const begun = performance.now();
  const timer = killAfterMs === undefined ? undefined : setTimeout(() => child.kill('SIGKILL'), killAfterMs);
  const code = await ended;
  clearTimeout(timer);
  if (killAfterMs === undefined) assert.equal(code, 0);
  return performance.now() - begun;
}

/** Kills a server at some moment of its start; it may listen by then. */
async function startAndKill(config: Config, afterMs: number): Promise<void> {
  const server = new ServerProcess(config);
  const started = server.start().catch(() => undefined);
  await Promise.race([pause(afterMs), started]);
  await server.end();
  await started;
}

async function schemaOf({ db }: Database): Promise<string[]> {
  const { rows } = await sql<{
    sql: string;
  }>`select sql from sqlite_master where sql is not null order by type, name`.execute(db);
  return rows.map((row) => row.sql);
}

async function count({ db }: Database, table: 'itwin' | 'imodel' | 'changeset' | 'owner' | 'audit'): Promise<number> {
  const { n } = await db
    .selectFrom(table)
    .select((eb) => eb.fn.countAll<number>().as('n'))
    .executeTakeFirstOrThrow();
  return Number(n);
}

describe('An upgrade of a large embedded database', () => {
  let installation: Installation;
  let old: string;
  let wanted: string[];
  before(async () => {
    installation = await Installation.create('sqlite');
    old = mkdtempSync(path.join(tmpdir(), 'offshoot-old-'));
    await makeOldDatabase(old);
    const fresh = await Installation.create('sqlite');
    const database = await openDatabase(fresh.config());
    wanted = await schemaOf(database);
    await database.close();
    fresh.remove();
  });
  after(() => {
    installation.remove();
    rmSync(old, { recursive: true, force: true });
  });

  const restore = () => {
    for (const left of [databaseFile, `${databaseFile}-wal`, `${databaseFile}-shm`, 'blobs'])
      rmSync(path.join(installation.dataDir, left), { recursive: true, force: true });
    copyFileSync(path.join(old, databaseFile), path.join(installation.dataDir, databaseFile));
  };
  const complete = async (what: string) => {
    const database = await openDatabase(installation.config());
    try {
      assert.deepEqual(await schemaOf(database), wanted, what);
      const executed = await sql<{ name: string }>`select name from kysely_migration order by name`.execute(
        database.db,
      );
      assert.deepEqual(
        executed.rows.map(({ name }) => name),
        Object.keys(migrationsFor('sqlite')),
        what,
      );
      const counts = [
        await count(database, 'itwin'),
        await count(database, 'owner'),
        await count(database, 'imodel'),
        await count(database, 'changeset'),
        await count(database, 'audit'),
      ];
      const { iTwins, changesets } = oldRows;
      assert.deepEqual(counts, [iTwins, iTwins, iTwins, changesets, changesets], what);
      assert.deepEqual((await sql`pragma foreign_key_check`.execute(database.db)).rows, [], what);
    } finally {
      await database.close();
    }
  };

  const points = times(8, 40);
  test(`that is killed at any of ${points} points is complete after the next start`, async () => {
    restore();
    const whole = await upgrade(installation.config());
    await complete('not killed');
    for (let n = 0; n < points; n++) {
      restore();
      await upgrade(installation.config(), (whole * n) / points);
      await complete(`killed after ${n}/${points} of ${Math.round(whole)} ms`);
    }
  });

  test('continues when the server is killed repeatedly, and the server works', async () => {
    restore();
    const config = installation.config();
    const begun = performance.now();
    const server = new ServerProcess(config);
    await server.start();
    const whole = performance.now() - begun;
    await server.end();
    restore();
    const kills = times(5, 10);
    for (let n = 1; n <= kills; n++) await startAndKill(config, whole * (0.3 + (0.7 * n) / kills));
    await complete(`killed ${kills} times`);
    const running = await installation.start();
    try {
      const api = await running.as('olivia');
      const { iModel } = (await api.get(`/imodels/${oldIModelId(oldRows.iTwins)}`)).body as {
        iModel: { iTwinId: string };
      };
      const each = oldRows.changesets / oldRows.iTwins;
      assert.equal((await api.get(`/imodels/${oldIModelId(7)}/changesets/${each}`)).status, 200);
      const clone = await api.post(`/imodels/${oldIModelId(7)}/clone`, { iTwinId: iModel.iTwinId, name: randomUUID() });
      assert.equal(clone.status, 202);
    } finally {
      await running.close();
    }
  });
});

for (const engine of engines) {
  test(`a first start on ${engine} that is killed at any point leaves a folder on which the next one works`, async () => {
    let installation = await Installation.create(engine);
    try {
      const begun = performance.now();
      const first = new ServerProcess(installation.config());
      await first.start();
      const whole = performance.now() - begun;
      await first.end();
      const [rounds, kills] = [times(2, 3), times(2, 4)];
      for (let round = 0; round < rounds; round++) {
        installation.remove();
        installation = await Installation.create(engine);
        // The folder is still empty: the users file is created too.
        if (round > 0) rmSync(path.join(installation.dataDir, 'users.json'));
        for (let n = 0; n < kills; n++)
          await startAndKill(installation.config(), whole * (0.35 + (0.6 * n) / kills + 0.05 * round));
        const server = new ServerProcess(installation.config());
        await server.start();
        assert.equal((await fetch(`${server.origin}/health/ready`)).status, 200);
        await server.end('SIGTERM');
      }
      const server = await installation.start();
      const { users } = server.services.directory.data;
      assert.ok(users.length > 0 && !users.some(({ id }) => id === people.olivia.id));
      await server.close();
    } finally {
      installation.remove();
    }
  });
}
