import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { describe, test } from 'node:test';
import { sql } from 'kysely';
import { openDatabase, type Database, type Tx } from '../apps/server/src/db/database.ts';
import { LostTransactionError, WriterUnavailableError } from '../apps/server/src/db/sqlite/errors.ts';
import { Writer } from '../apps/server/src/db/sqlite/writerQueue.ts';
import { engines, Installation } from './support/server.ts';

async function withDatabase(engine: 'sqlite' | 'postgres', work: (database: Database) => Promise<void>): Promise<void> {
  const installation = await Installation.create(engine);
  const database = await openDatabase(installation.config());
  try {
    await work(database);
  } finally {
    await database.close();
    installation.remove();
  }
}

const write = (tx: Tx, name: string) => tx.insertInto('secret').values({ name, value: 'x' }).execute();
const names = async ({ db }: Database) =>
  (await db.selectFrom('secret').select('name').orderBy('name').execute()).map(({ name }) => name);
/** Makes the COMMIT of a transaction fail: a dangling foreign key that is checked only then. */
async function failCommit(tx: Tx, { engine }: Database): Promise<void> {
  if (engine === 'sqlite') await sql`pragma defer_foreign_keys = on`.execute(tx);
  else await sql`alter table role alter constraint role_itwin_id_fkey deferrable initially deferred`.execute(tx);
  await tx
    .insertInto('role')
    .values({ id: randomUUID(), itwin_id: 'nowhere', display_name: 'r', description: null, permissions: '[]' })
    .execute();
}

for (const engine of engines) {
  describe(`A transaction on ${engine}`, () => {
    test('whose COMMIT fails leaves nothing behind, and every other one stays complete', async () => {
      await withDatabase(engine, async (database) => {
        const { db } = database;
        const kept: string[] = [];
        const others = Array.from({ length: 40 }, async (_, n) => {
          const name = `good ${n}`;
          await db.transaction().execute(async (tx) => {
            await write(tx, `${name} first`);
            await write(tx, `${name} second`);
          });
          kept.push(`${name} first`, `${name} second`);
        });
        const failing = Array.from({ length: 10 }, (_, n) =>
          db.transaction().execute(async (tx) => {
            await write(tx, `bad ${n}`);
            await failCommit(tx, database);
          }),
        );
        const alone = Array.from({ length: 10 }, async (_, n) => {
          await db
            .insertInto('secret')
            .values({ name: `alone ${n}`, value: 'x' })
            .execute();
          kept.push(`alone ${n}`);
        });
        assert.deepEqual(
          new Set((await Promise.allSettled(failing)).map(({ status }) => status)),
          new Set(['rejected']),
        );
        await Promise.all([...others, ...alone]);
        assert.deepEqual(await names(database), kept.sort());
        assert.deepEqual(await db.selectFrom('role').select('id').execute(), []);
      });
    });

    test('whose work fails in the middle leaves nothing behind', async () => {
      await withDatabase(engine, async (database) => {
        await assert.rejects(
          database.db.transaction().execute(async (tx) => {
            await write(tx, 'first');
            throw new Error('given up');
          }),
          /given up/,
        );
        assert.deepEqual(await names(database), []);
      });
    });
  });
}

describe('A transaction on sqlite', () => {
  test('that SQLite rolled back inside a statement does not continue with later statements', async () => {
    await withDatabase('sqlite', async (database) => {
      await assert.rejects(
        database.db.transaction().execute(async (tx) => {
          await write(tx, 'before');
          // As SQLite does itself on a full disk or a failed write.
          await assert.rejects(sql`insert or rollback into secret (name, value) values ('before', 'x')`.execute(tx));
          await write(tx, 'after');
        }),
        /rolled this transaction back/,
      );
      assert.deepEqual(await names(database), []);
      await assert.rejects(
        database.db.transaction().execute(async (tx) => {
          await write(tx, 'before');
          await assert.rejects(sql`insert or rollback into secret (name, value) values ('before', 'x')`.execute(tx));
        }),
        /rolled this transaction back/,
        'nor is it reported as committed',
      );
      await database.db.transaction().execute((tx) => write(tx, 'next'));
      assert.deepEqual(await names(database), ['next']);
    });
  });

  test('that runs out of disk space leaves nothing behind, and the next one with space is complete', async () => {
    await withDatabase('sqlite', async (database) => {
      const { db } = database;
      const { rows } = await sql<{ page_count: number }>`pragma page_count`.execute(db);
      await sql.raw(`pragma max_page_count = ${(rows[0]?.page_count ?? 0) + 5}`).execute(db);
      const big = 'x'.repeat(50_000);
      const outcomes = await Promise.allSettled(
        Array.from({ length: 20 }, (_, n) =>
          db.transaction().execute(async (tx) => {
            await tx
              .insertInto('secret')
              .values({ name: `small ${n}`, value: 'x' })
              .execute();
            if (n % 2 === 0)
              await tx
                .insertInto('secret')
                .values({ name: `big ${n}`, value: big })
                .execute();
          }),
        ),
      );
      const kept = outcomes.flatMap(({ status }, n) =>
        status === 'fulfilled' ? [`small ${n}`, ...(n % 2 === 0 ? [`big ${n}`] : [])] : [],
      );
      assert.ok(outcomes.some(({ status }) => status === 'rejected') && kept.length > 0);
      assert.deepEqual(await names(database), kept.sort());
    });
  });

  test('that cannot begin lets the next one begin', async () => {
    await withDatabase('sqlite', async (database) => {
      const { db, writer } = database;
      // Bound manually, as Kysely would; SQLite refuses it because of its parameter.
      await assert.rejects(
        writer?.alone('alone', 'select ?', [Symbol('cannot be sent to a thread')]) as Promise<unknown>,
      );
      await assert.rejects(sql`no statement`.execute(db));
      await db.transaction().execute((tx) => write(tx, 'next'));
      assert.deepEqual(await names(database), ['next']);
    });
  });

  test('that hangs or stays idle is ended, and only then does the next one begin', async () => {
    const installation = await Installation.create('sqlite');
    const writer = new Writer(`${installation.dataDir}/x.db`, { turnMs: 20_000, statementMs: 200 });
    try {
      await writer.alone('script', 'create table t (x integer)');
      const endless =
        'insert into t with recursive n (i) as (select 1 union all select i + 1 from n where i < 10000000) select count(*) from n';
      const hanging = await writer.turn('thread');
      await hanging.ask({ kind: 'begin' });
      const next = writer.turn('thread');
      const late = assert.rejects(
        hanging.ask({ kind: 'within', sql: endless, parameters: [] }),
        WriterUnavailableError,
      );
      await late;
      hanging.end();
      const turn = await next;
      assert.deepEqual(
        (await turn.ask({ kind: 'alone', sql: 'select count(*) as n from t', parameters: [] })).rows.map(
          (row) => (row as { n: number }).n,
        ),
        [0],
      );
      turn.end();
      for (const lane of ['thread', 'main'] as const) {
        const idle = await writer.turn(lane);
        await idle.ask({ kind: 'begin' });
        await idle.ask({ kind: 'within', sql: 'insert into t values (1)', parameters: [] });
        // It has no further effect: it is ended, and the next one does not see its row.
        const after = await writer.turn(lane === 'main' ? 'thread' : 'main');
        assert.equal(idle.ended, true);
        assert.deepEqual(
          (await after.ask({ kind: 'alone', sql: 'select count(*) as n from t', parameters: [] })).rows.map(
            (row) => (row as { n: number }).n,
          ),
          [0],
        );
        after.end();
      }
    } finally {
      await writer.close();
      installation.remove();
    }
  });

  test('waits for the writer only until its timeout', async () => {
    const installation = await Installation.create('sqlite');
    const writer = new Writer(`${installation.dataDir}/x.db`, { turnMs: 300, statementMs: 20_000 });
    try {
      const held = await writer.turn();
      await assert.rejects(writer.turn(), WriterUnavailableError);
      held.end();
      (await writer.turn()).end();
    } finally {
      await writer.close();
      installation.remove();
    }
  });

  test('whose thread crashes has no effect, and another thread takes over', async () => {
    await withDatabase('sqlite', async (database) => {
      const { db } = database;
      const writer = database.writer as Writer;
      await db.transaction().execute((tx) => write(tx, 'earlier'));
      const lost = await writer.turn('thread');
      await lost.ask({ kind: 'begin' });
      await lost.ask({ kind: 'within', sql: "insert into secret (name, value) values ('lost', 'x')", parameters: [] });
      await writer.endThread();
      await assert.rejects(lost.ask({ kind: 'commit' }), LostTransactionError);
      lost.end();
      await db.transaction().execute((tx) => write(tx, 'next'));
      await writer.alone('script', "insert into secret (name, value) values ('there', 'x')", [], 'thread');
      assert.deepEqual(await names(database), ['earlier', 'next', 'there']);
      await writer.answers();
    });
  });
});
