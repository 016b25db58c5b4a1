import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { startServer } from '../apps/server/src/app.ts';
import type { BackedUp } from '../apps/server/src/maintenance/backup.ts';
import { loadConfig, type ConfigInput } from '../apps/server/src/config.ts';
import { verify } from '../apps/server/src/maintenance/verify.ts';
import { clientsOf } from '../scripts/clients.ts';
import { all, makeIModel, official, pushMore, workFolder, type MadeIModel, type Official } from './support/clients.ts';
import { createPostgresDatabase } from './support/postgres.ts';
import { endServer, Installation, setups, type TestServer } from './support/server.ts';

const cli = fileURLToPath(new URL('../apps/server/src/cli.ts', import.meta.url));
const west = 'West Europe';

async function idsOf({ client, authorization }: Official, iModelId: string): Promise<string[]> {
  return (await all(client.changesets.getMinimalList({ authorization, iModelId }))).map(({ id }) => id);
}

function backup(
  target: string,
  config: string,
  ...args: string[]
): Promise<{ code: number; stderr: string; done: BackedUp }> {
  return new Promise((resolve) => {
    const child = execFile(
      process.execPath,
      [cli, 'backup', target, '--config', config, '--json', ...args],
      (_error, stdout, stderr) =>
        resolve({ code: child.exitCode ?? -1, stderr, done: JSON.parse(stdout === '' ? '{}' : stdout) as BackedUp }),
    );
  });
}

describe('A backup of an embedded installation', () => {
  /** A server with files in two data centers, its configuration as a file, and a folder for its backup. */
  async function onServer(
    work: (
      server: TestServer,
      config: string,
      target: string,
      dataCenters: NonNullable<ConfigInput['dataCenters']>,
    ) => Promise<void>,
  ): Promise<void> {
    const folder = workFolder();
    const installation = await Installation.create('sqlite');
    const dataCenters = { [west]: { type: 'files' as const, folder: 'west' } };
    const server = await installation.start({ dataCenters });
    try {
      const config = path.join(folder.path, 'offshoot.json');
      writeFileSync(config, JSON.stringify({ dataDir: installation.dataDir, dataCenters }));
      await work(server, config, path.join(folder.path, 'backup'), dataCenters);
    } finally {
      await endServer(server);
      folder.remove();
    }
  }

  test('taken while clients push, starts with everything acknowledged before it and every file intact', async () => {
    await onServer(async (server, config, target, dataCenters) => {
      const olivia = await official(server);
      const iTwinId = await server.iTwin();
      const models = [
        await makeIModel(olivia, iTwinId, { changesets: 3 }),
        await makeIModel(olivia, await server.iTwin('olivia', undefined, west), { changesets: 2 }),
      ];
      const before = new Map(models.map(({ id, changesets }) => [id, changesets.map((changeset) => changeset.id)]));
      let ended = false;
      const pushing = Promise.all(
        models.map(async (made) => {
          while (!ended) await pushMore(olivia, made, 1);
        }),
      );
      const first = await backup(target, config);
      ended = true;
      await pushing;
      assert.deepEqual([first.code, first.done.faults, first.done.copied], [0, [], first.done.files], first.stderr);

      const restored = await startServer(
        loadConfig(
          {
            dataDir: target,
            dataCenters,
            host: '127.0.0.1',
            port: 0,
            logLevel: 'fatal',
            tiers: server.installation.config().tiers,
          },
          { env: {} },
        ),
      );
      try {
        const { database, blobs } = restored.services;
        assert.deepEqual((await verify(database.db, blobs.stores, true)).faults, []);
        // The signing key of its tokens is part of the backup.
        const there = clientsOf(restored.origin, await server.token('olivia'));
        for (const { id, changesets } of models) {
          const ids = await idsOf(there, id);
          assert.deepEqual(ids.slice(0, before.get(id)?.length), before.get(id));
          assert.deepEqual(ids, changesets.map((changeset) => changeset.id).slice(0, ids.length));
        }
      } finally {
        await restored.close();
      }
    });
  });

  test('repeated, copies what is new and removes what was deleted', async () => {
    await onServer(async (server, config, target) => {
      const olivia = await official(server);
      const iTwinId = await server.iTwin();
      const [kept, dropped] = [
        await makeIModel(olivia, iTwinId, { changesets: 2 }),
        await makeIModel(olivia, iTwinId, { changesets: 4 }),
      ];
      assert.equal((await backup(target, config)).code, 0);
      await pushMore(olivia, kept, 3);
      await olivia.client.iModels.delete({ authorization: olivia.authorization, iModelId: dropped.id });
      const { database, blobs } = server.services;
      await database.db
        .deleteFrom('changeset')
        .where(
          'id',
          'in',
          dropped.changesets.map(({ id }) => id),
        )
        .execute();
      await database.db
        .deleteFrom('blob')
        .where('id', 'not in', database.db.selectFrom('changeset').select('blob_id'))
        .where('id', 'not in', database.db.selectFrom('baseline').select('blob_id'))
        .execute();
      const again = await backup(target, config);
      assert.deepEqual([again.code, again.done.copied, again.done.removed], [0, 3, 4], again.stderr);

      const { key } = await database.db
        .selectFrom('changeset as c')
        .innerJoin('blob as b', 'b.id', 'c.blob_id')
        .select('b.key')
        .where('c.id', '=', kept.changesets[4]?.id ?? '')
        .executeTakeFirstOrThrow();
      await blobs.stores.home.delete(key as string);
      const other = await backup(`${target}-2`, config);
      assert.deepEqual([other.code, other.done.faults.map(({ what }) => what)], [1, ['missing']]);
      assert.ok(existsSync(path.join(`${target}-2`, 'offshoot.db')));
    });
  });

  test('is refused in a target folder where it would be harmful or useless', async () => {
    await onServer(async (server, config, target) => {
      assert.match(
        (await backup(path.join(server.installation.dataDir, 'backup'), config)).stderr,
        /must be outside the data folder/,
      );
      assert.match((await backup(server.installation.dataDir, config)).stderr, /must be outside the data folder/);
      assert.match(
        (await backup(target, config, '--data', path.join(target, 'nothing'))).stderr,
        /there is no installation/,
      );
      const another = await Installation.create('sqlite');
      const other = await another.start();
      assert.match((await backup(another.dataDir, config)).stderr, /Another server runs on/);
      await other.close();
      assert.match((await backup(another.dataDir, config)).stderr, /contains another installation/);
      await (await another.start()).close();
      another.remove();
      writeFileSync(
        config,
        JSON.stringify({ dataDir: server.installation.dataDir, databaseUrl: 'postgres://127.0.0.1:9/x' }),
      );
      assert.match((await backup(target, config)).stderr, /pg_dump/);
    });
  });
});

const binaries = [
  '/usr/lib/postgresql/18/bin',
  '/usr/lib/postgresql/17/bin',
  '/usr/lib/postgresql/16/bin',
  '/usr/lib/postgresql/15/bin',
].find((folder) => existsSync(path.join(folder, 'pg_dump')));

for (const setup of setups.filter(({ engine }) => engine === 'postgres'))
  test(
    `a dump of PostgreSQL, restored beside the files of ${setup.store}, restores the installation as of the dump`,
    { skip: binaries === undefined ? 'there is no pg_dump' : false },
    async () => {
      const installation = await Installation.create(setup);
      let server = await installation.start();
      try {
        const olivia = await official(server);
        const made = await makeIModel(olivia, await server.iTwin(), { changesets: 3 });
        const ids = made.changesets.map(({ id }) => id);
        const work = workFolder();
        const dump = path.join(work.path, 'offshoot.dump');
        const tool = (name: string, ...args: string[]) =>
          new Promise<void>((resolve, reject) => {
            execFile(path.join(binaries as string, name), args, (error) =>
              error === null ? resolve() : reject(new Error(name, { cause: error })),
            );
          });
        await tool('pg_dump', '--format=custom', `--file=${dump}`, installation.databaseUrl as string);
        // Changes after the dump: the files of a deleted iModel stay for the grace period, new ones are orphans of the restored installation.
        await pushMore(olivia, made, 2);
        await olivia.client.iModels.delete({ authorization: olivia.authorization, iModelId: made.id });
        await server.close();
        const restored = await createPostgresDatabase(installation.databaseUrl as string);
        await tool('pg_restore', '--no-owner', `--dbname=${restored}`, dump);
        work.remove();

        server = await installation.start({ databaseUrl: restored });
        const { database, blobs } = server.services;
        assert.deepEqual((await verify(database.db, blobs.stores, true)).faults, []);
        const there = await official(server);
        assert.deepEqual(await idsOf(there, made.id), ids);
        const again: MadeIModel = { ...made, changesets: made.changesets.slice(0, 3) };
        await pushMore(there, again, 1);
        assert.equal((await idsOf(there, made.id)).length, 4);
      } finally {
        await endServer(server);
      }
    },
  );
