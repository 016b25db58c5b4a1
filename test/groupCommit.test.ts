import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { DatabaseSync } from 'node:sqlite';
import { afterEach, describe, test } from 'node:test';
import { setImmediate as turnOfLoop } from 'node:timers/promises';
import { openDatabase, type Database } from '../apps/server/src/db/database.ts';
import { WriterUnavailableError } from '../apps/server/src/db/sqlite/errors.ts';
import { Installation } from './support/server.ts';
import { until } from './support/until.ts';

type Callback = (error: NodeJS.ErrnoException | null) => void;

/** Replaces the sync of the disk that the database calls. */
class Disk {
  static readonly #real = fs.fdatasync;
  readonly #held: (() => void)[] = [];
  syncs = 0;
  mode: 'works' | 'held' | 'fails' = 'works';

  constructor() {
    Object.assign(fs, {
      fdatasync: (handle: number, done: Callback) => {
        this.syncs++;
        if (this.mode === 'fails') done(Object.assign(new Error('EIO: i/o error, fdatasync'), { code: 'EIO' }));
        else if (this.mode === 'held') this.#held.push(() => Disk.#real(handle, done));
        else Disk.#real(handle, done);
      },
    });
    syncBuiltinESMExports();
  }

  release(): void {
    this.mode = 'works';
    for (const sync of this.#held.splice(0)) sync();
  }

  remove(): void {
    this.release();
    Object.assign(fs, { fdatasync: Disk.#real });
    syncBuiltinESMExports();
  }
}

/** Whether a promise stays pending while the event loop turns often enough for every answer that does not wait for the disk. */
async function staysPending(promise: Promise<unknown>): Promise<boolean> {
  let ended = false;
  const end = (): void => void (ended = true);
  promise.then(end, end);
  for (let turns = 0; turns < 200; turns++) await turnOfLoop();
  return !ended;
}

const insert = ({ db }: Pick<Database, 'db'>, name: string) =>
  db.transaction().execute((tx) => tx.insertInto('secret').values({ name, value: 'x' }).execute());
const names = async ({ db }: Pick<Database, 'db'>): Promise<string[]> =>
  (await db.selectFrom('secret').select('name').orderBy('name').execute()).map(({ name }) => name);

describe('Commits of the embedded database', () => {
  let disk: Disk;
  afterEach(() => disk.remove());

  async function withDatabase(work: (database: Database, file: string) => Promise<void>): Promise<void> {
    const installation = await Installation.create('sqlite');
    const database = await openDatabase(installation.config());
    disk = new Disk();
    try {
      await work(database, `${installation.dataDir}/offshoot.db`);
    } finally {
      disk.release();
      await database.close();
      installation.remove();
    }
  }

  test('are not answered before they are synced, and neither is a request that read them', async () => {
    const installation = await Installation.create('sqlite');
    const server = await installation.start();
    disk = new Disk();
    try {
      const iTwinId = await server.iTwin();
      const api = await server.as('olivia');
      const { database } = server.services;
      const name = randomUUID();
      // The first request of a user may write, for example a lease of the rate limits.
      assert.equal((await api.get(`/imodels?iTwinId=${iTwinId}`)).status, 200);
      disk.mode = 'held';
      const created = api.post('/imodels', { iTwinId, name });
      await until(
        'the commit',
        async () => (await database.db.selectFrom('imodel').select('id').where('name', '=', name).execute())[0],
      );
      const listed = api.get(`/imodels?iTwinId=${iTwinId}`);
      assert.ok(await staysPending(created), 'the creation waits for the disk');
      assert.ok(await staysPending(listed), 'the list that contains it waits for the disk');
      disk.release();
      assert.equal((await created).status, 201);
      const { body } = await listed;
      assert.deepEqual(
        (body as { iModels: { displayName: string }[] }).iModels.map(({ displayName }) => displayName),
        [name],
      );
    } finally {
      disk.release();
      await server.close();
    }
  });

  test('that were written during a sync share the next one', async () => {
    await withDatabase(async (database) => {
      disk.mode = 'held';
      const first = insert(database, 'first');
      await until('the first sync', () => disk.syncs === 1 || undefined);
      const others = Array.from({ length: 50 }, (_, n) => insert(database, `other ${n}`));
      await until('all commits', async () => (await names(database)).length === 51 || undefined);
      disk.release();
      await Promise.all([first, ...others]);
      assert.equal(disk.syncs, 2);
    });
  });

  test('that fail leave the others of the same sync complete', async () => {
    await withDatabase(async (database) => {
      disk.mode = 'held';
      const outcomes = Promise.allSettled(Array.from({ length: 20 }, (_, n) => insert(database, `name ${n % 10}`)));
      await until('all commits', async () => (await names(database)).length === 10 || undefined);
      disk.release();
      const settled = await outcomes;
      assert.equal(settled.filter(({ status }) => status === 'fulfilled').length, 10);
      assert.equal((await names(database)).length, 10);
    });
  });

  test('whose sync fails are made durable by moving them into the database, or else are not reported as committed', async () => {
    await withDatabase(async (database, file) => {
      disk.mode = 'fails';
      await insert(database, 'moved');
      // A reader that holds an older state keeps the log from being moved.
      const holder = new DatabaseSync(file, { readOnly: true });
      holder.exec('begin');
      holder.prepare('select count(*) from secret').get();
      try {
        await assert.rejects(insert(database, 'unknown'), WriterUnavailableError);
        await assert.rejects(insert(database, 'refused'), WriterUnavailableError);
        await assert.rejects(database.writer?.answers() as Promise<void>, WriterUnavailableError);
      } finally {
        holder.close();
      }
      disk.release();
      await insert(database, 'next');
      const all = await names(database);
      assert.ok(['moved', 'next'].every((name) => all.includes(name)) && !all.includes('refused'));
    });
  });

  test('wait for the lock of another process without blocking anybody', async () => {
    await withDatabase(async (database, file) => {
      const other = new DatabaseSync(file);
      other.exec('begin immediate');
      try {
        const waiting = insert(database, 'waits');
        const alone = database.db.insertInto('secret').values({ name: 'alone', value: 'x' }).execute();
        assert.ok(await staysPending(Promise.race([waiting, alone])));
        other.exec('commit');
        await Promise.all([waiting, alone]);
      } finally {
        other.close();
      }
      assert.deepEqual(await names(database), ['alone', 'waits']);
    });
  });

  test('do not make the log grow without end', async () => {
    await withDatabase(async (database, file) => {
      const value = 'x'.repeat(100_000);
      const largest = async (): Promise<number> => {
        for (let round = 0; round < 40; round++)
          await Promise.all(
            Array.from({ length: 25 }, (_, n) =>
              database.db
                .insertInto('secret')
                .values({ name: `${n}`, value })
                .onConflict((conflict) => conflict.column('name').doUpdateSet({ value }))
                .execute(),
            ),
          );
        return fs.statSync(`${file}-wal`).size;
      };
      await largest();
      const first = await largest();
      await largest();
      await largest();
      assert.ok((await largest()) <= 2 * first);
    });
  });

  test('that never pause do not keep the log from beginning anew', async () => {
    await withDatabase(async (database, file) => {
      const value = 'x'.repeat(40_000);
      const write = async (name: string): Promise<void> => {
        for (let round = 0; round < 100; round++)
          await database.db.transaction().execute((tx) =>
            tx
              .insertInto('secret')
              .values({ name: `${name} ${round}`, value })
              .execute(),
          );
      };
      // 140 MB of changes; the log begins anew after 16 MiB and what is written meanwhile.
      await Promise.all(Array.from({ length: 25 }, (_, n) => write(`${n}`)));
      const megabytes = fs.statSync(`${file}-wal`).size / 2 ** 20;
      assert.ok(megabytes < 64, `the log has ${megabytes.toFixed()} MiB`);
    });
  });
});

describe('A scan of the embedded database', () => {
  test('runs while the main thread answers, sees what was committed, and writes nothing', async () => {
    const installation = await Installation.create('sqlite');
    const database = await openDatabase(installation.config());
    try {
      await insert(database, 'a');
      assert.deepEqual(await names({ db: database.scans }), ['a']);
      await insert(database, 'b');
      assert.deepEqual(await names({ db: database.scans }), ['a', 'b']);
      await assert.rejects(database.scans.deleteFrom('secret').execute(), /readonly/);
      await assert.rejects(insert({ db: database.scans }, 'c'), /no transactions/);
      assert.deepEqual(await names(database), ['a', 'b']);
    } finally {
      await database.close();
      installation.remove();
    }
  });
});
