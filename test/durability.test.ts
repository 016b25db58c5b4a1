import assert from 'node:assert/strict';
import { fork, type ChildProcess } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { request } from 'node:http';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, test } from 'node:test';
import { migrationsFor } from '../apps/server/src/db/migrations/index.ts';
import { openDatabase, DataFolderInUseError, NewerSchemaError } from '../apps/server/src/db/database.ts';
import { Api } from './support/api.ts';
import { makeIModel, official } from './support/clients.ts';
import { type TestServer, Installation, engines } from './support/server.ts';

const cli = fileURLToPath(new URL('../apps/server/src/cli.ts', import.meta.url));

/** A server in a separate process, which can be killed. */
async function startProcess(
  installation: Installation,
): Promise<{ child: ChildProcess; origin: string; ended: Promise<void> }> {
  const file = path.join(installation.dataDir, 'server.json');
  writeFileSync(file, JSON.stringify({ ...installation.config() }));
  const child = fork(cli, ['start', '--config', file], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const origin = await new Promise<string>((resolve, reject) => {
    child.once('message', (message) => resolve((message as { origin: string }).origin));
    child.once('exit', (code) => reject(new Error(`the server ended with ${code}`)));
  });
  return { child, origin, ended };
}

for (const engine of engines) {
  describe(`A server on ${engine}`, () => {
    test('keeps everything acknowledged and leaves nothing partial when it is killed while cloning', async () => {
      const installation = await Installation.create(engine);
      try {
        const setUp = await installation.start();
        const iTwinId = await setUp.iTwin();
        const made = await makeIModel(await official(setUp), iTwinId, { changesets: 3 });
        const token = await setUp.token('olivia');
        await setUp.close();

        const acknowledged: string[] = [];
        for (let round = 0; round < 3; round++) {
          const server = await startProcess(installation);
          const api = new Api(server.origin, token);
          const enough = acknowledged.length + 20 + round * 7;
          const cloners = Array.from({ length: 4 }, async () => {
            for (;;) {
              const answer = await api
                .post(`/imodels/${made.id}/clone`, { iTwinId, name: randomUUID() })
                .catch(() => undefined);
              if (answer === undefined) return;
              assert.equal(answer.status, 202);
              acknowledged.push((answer.headers.get('location') ?? '').split('/').at(-1) as string);
              if (acknowledged.length >= enough) server.child.kill('SIGKILL');
            }
          });
          await Promise.all(cloners);
          await server.ended;
        }

        const after = await installation.start();
        const api = await after.as('olivia');
        assert.ok(acknowledged.length >= 60);
        for (const id of acknowledged) {
          const { changesets } = (await api.get(`/imodels/${id}/changesets`)).body as { changesets: { id: string }[] };
          assert.deepEqual(
            changesets.map((changeset) => changeset.id),
            made.changesets.map((changeset) => changeset.id),
          );
        }
        const unfinished = await after.services.database.db
          .selectFrom('operation')
          .selectAll()
          .where('state', '!=', 'successful')
          .execute();
        assert.deepEqual(unfinished, []);
        await after.close();
      } finally {
        installation.remove();
      }
    });

    test('exits cleanly on SIGTERM', async () => {
      const installation = await Installation.create(engine);
      try {
        const { child, origin, ended } = await startProcess(installation);
        assert.equal((await new Api(origin).get('/health')).status, 200);
        child.kill('SIGTERM');
        await ended;
        assert.equal(child.exitCode, 0);
      } finally {
        installation.remove();
      }
    });

    test('exits despite a client that stopped in the middle of a request', async () => {
      const installation = await Installation.create(engine);
      try {
        const server = await installation.start({ shutdownSeconds: 0.2 });
        const stalled = request(`${server.origin}/itwins`, {
          method: 'POST',
          headers: { authorization: `Bearer ${await server.token('olivia')}`, 'content-length': 1000 },
        });
        const cutOff = new Promise<void>((resolve) =>
          stalled.once('error', () => undefined).once('close', () => resolve()),
        );
        const underWay = new Promise<void>((resolve) => server.running.app.server.once('request', () => resolve()));
        stalled.write('{"displayName":');
        await underWay;
        await server.close();
        await cutOff;
      } finally {
        installation.remove();
      }
    });

    test('refuses to start on the database of a newer version', async () => {
      const installation = await Installation.create(engine);
      try {
        const config = installation.config();
        const database = await openDatabase(config);
        await database.db
          .insertInto('kysely_migration' as never)
          .values({ name: '9999-from-the-future', timestamp: new Date().toISOString() })
          .execute();
        await database.close();
        await assert.rejects(openDatabase(config), NewerSchemaError);
      } finally {
        installation.remove();
      }
    });
  });
}

test('refuses to run on a data folder that another server uses', async () => {
  const installation = await Installation.create('sqlite');
  try {
    const first = await installation.start();
    await assert.rejects(installation.start(), DataFolderInUseError);
    assert.equal((await (await first.as('olivia')).get('/itwins')).status, 200);
    await first.close();
    await (await installation.start()).close();
  } finally {
    installation.remove();
  }
});

test(
  'any number of servers can start concurrently on an empty PostgreSQL',
  { skip: !engines.includes('postgres') },
  async () => {
    const installation = await Installation.create('postgres');
    try {
      const databases = await Promise.all(
        Array.from({ length: 20 }, () => openDatabase({ ...installation.config(), databasePool: 2 })),
      );
      const migrations = await databases[0]?.db
        .selectFrom('kysely_migration' as never)
        .selectAll()
        .execute();
      assert.equal(migrations?.length, Object.keys(migrationsFor('postgres')).length);
      await Promise.all(databases.map((database) => database.close()));
      const servers: TestServer[] = await Promise.all(
        Array.from({ length: 4 }, () => installation.start({ databasePool: 3 })),
      );
      const seeds = await servers[0]?.services.database.db.selectFrom('baseline').selectAll().execute();
      assert.equal(seeds?.length, 1);
      // Links of one server are valid at all of them.
      const [one, other] = servers as [TestServer, TestServer];
      const made = await makeIModel(await official(one), await one.iTwin());
      const { baselineFile } = (await (await one.as('olivia')).get(`/imodels/${made.id}/baselinefile`)).body as {
        baselineFile: { _links: { download: { href: string } } };
      };
      const download = await fetch(baselineFile._links.download.href.replace(one.origin, other.origin));
      assert.deepEqual([download.status, (await download.arrayBuffer()).byteLength > 0], [200, true]);
      await Promise.all(servers.map((server) => server.close()));
    } finally {
      installation.remove();
    }
  },
);
