import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { sql } from 'kysely';
import { openDatabase, type Database, type Db } from '../apps/server/src/db/database.ts';
import {
  copyDatabase,
  CopyMismatchError,
  NotEmptyError,
  tablesInOrder,
} from '../apps/server/src/maintenance/migrateDatabase.ts';
import { withRetry, UnreachableDatabaseError } from '../apps/server/src/db/postgres/pool.ts';
import { makeIModel, official, pushMore } from './support/clients.ts';
import { startPostgres } from './support/postgres.ts';
import { engines, Installation } from './support/server.ts';

const skip = engines.includes('postgres') ? false : 'there is no PostgreSQL';

describe('Transactions on PostgreSQL', { skip }, () => {
  let installation: Installation;
  let database: Database;
  before(async () => {
    installation = await Installation.create('postgres');
    database = await openDatabase(installation.config());
    for (const name of ['a', 'b']) await database.db.insertInto('secret').values({ name, value: '0' }).execute();
  });
  after(async () => {
    await database.close();
    installation.remove();
  });

  const add = (name: string) => sql`update secret set value = (value::int + 1)::text where name = ${name}`;
  const valueOf = async (name: string) =>
    (await database.db.selectFrom('secret').select('value').where('name', '=', name).executeTakeFirstOrThrow()).value;

  test('that deadlock are retried, and each counts once', async () => {
    let bothHold!: () => void;
    const held = new Promise<void>((resolve) => (bothHold = resolve));
    let holding = 0;
    const run = (first: string, second: string) =>
      database.db.transaction().execute(async (tx) => {
        await add(first).execute(tx);
        if (++holding === 2) bothHold();
        await held;
        await add(second).execute(tx);
      });
    await Promise.all([run('a', 'b'), run('b', 'a')]);
    assert.ok(holding > 2, 'one of them began again');
    assert.deepEqual([await valueOf('a'), await valueOf('b')], ['2', '2']);
  });

  test('whose connection is lost are retried on another', async () => {
    const before = Number(await valueOf('a'));
    let runs = 0;
    await database.db.transaction().execute(async (tx) => {
      runs++;
      await add('a').execute(tx);
      if (runs > 1) return;
      const { rows } = await sql<{ pid: number }>`select pg_backend_pid() as pid`.execute(tx);
      await sql`select pg_terminate_backend(${rows[0]?.pid})`.execute(database.db);
      await add('a').execute(tx);
    });
    assert.deepEqual([runs, Number(await valueOf('a'))], [2, before + 1]);
  });

  test('and single reads are retried after a lost connection, single writes are not', async () => {
    const cut = async (text: string) => {
      for (;;) {
        const found = await sql<{
          pid: number;
        }>`select pid from pg_stat_activity where query like ${`%${text}%`} and pid <> pg_backend_pid() and wait_event = 'PgSleep'`.execute(
          database.db,
        );
        const [first] = found.rows;
        if (first === undefined) continue;
        await sql`select pg_terminate_backend(${first.pid})`.execute(database.db);
        return;
      }
    };
    const read = sql<{
      value: string;
    }>`select value, pg_sleep(0.3) from secret where name = ${'b'} /* to be cut */`.execute(database.db);
    await cut('to be cut');
    assert.equal((await read).rows[0]?.value, await valueOf('b'));
    const before = await valueOf('b');
    const change =
      sql`update secret set value = 'changed' where name = ${'b'} and pg_sleep(30) is not null /* never done */`.execute(
        database.db,
      );
    const refused = assert.rejects(change, /terminat/);
    await cut('never done');
    await refused;
    assert.equal(await valueOf('b'), before);
  });

  test('that cannot begin wait while PostgreSQL is briefly unavailable', async () => {
    const postgres = await startPostgres();
    const other = await openDatabase({ ...installation.config(), databaseUrl: postgres.url });
    try {
      const [, rows] = await Promise.all([
        postgres.crash(),
        withRetry(
          () => other.db.selectFrom('secret').selectAll().execute(),
          (error) => error instanceof UnreachableDatabaseError,
        ),
      ]);
      assert.deepEqual(rows, []);
      await postgres.stop();
      await assert.rejects(other.db.selectFrom('secret').selectAll().execute(), UnreachableDatabaseError);
    } finally {
      await other.close();
      await postgres.stop();
    }
  });

  test('that fail for another reason are not retried', async () => {
    let runs = 0;
    await assert.rejects(
      database.db.transaction().execute(async (tx) => {
        runs++;
        await tx.insertInto('secret').values({ name: 'a', value: 'taken' }).execute();
      }),
    );
    assert.equal(runs, 1);
  });
});

describe('Statements on PostgreSQL', { skip }, () => {
  async function onDatabase(databasePrepares: boolean, work: (database: Database) => Promise<void>): Promise<void> {
    const installation = await Installation.create('postgres');
    const database = await openDatabase(installation.config({ databasePrepares, databasePool: 2 }));
    try {
      await work(database);
    } finally {
      await database.close();
      installation.remove();
    }
  }
  const read = (db: Db, name: string) => db.selectFrom('secret').selectAll().where('name', '=', name).execute();
  /** On one connection, so that its prepared statements can be inspected. */
  const prepared = ({ db }: Database) =>
    db.connection().execute(async (connection) => {
      for (let n = 0; n < 3; n++) await read(connection, 'x');
      return (
        await sql<{ statement: string }>`select statement from pg_prepared_statements`.execute(connection)
      ).rows.filter(({ statement }) => statement.includes('"secret"')).length;
    });

  test('are prepared once per connection, unless the configuration disables it', async () => {
    await onDatabase(true, async (database) => assert.equal(await prepared(database), 1));
    await onDatabase(false, async (database) => assert.equal(await prepared(database), 0));
  });

  test('keep working when a newer server adds a column, alone and in transactions', async () => {
    await onDatabase(true, async (database) => {
      const { db } = database;
      const both = async () => {
        await Promise.all([read(db, 'x'), read(db, 'x')]);
        let runs = 0;
        await db.transaction().execute(async (tx) => {
          runs++;
          await tx.insertInto('secret').values({ name: randomUUID(), value: 'y' }).execute();
          await read(tx, 'x');
        });
        return runs;
      };
      await both();
      const { count } = await db
        .selectFrom('secret')
        .select((eb) => eb.fn.countAll<number>().as('count'))
        .executeTakeFirstOrThrow();
      await sql`alter table secret add column more text`.execute(db);
      // Starts with the transaction, whose connection has prepared the statement.
      await both();
      await sql`alter table secret add column still_more text`.execute(db);
      await db.transaction().execute((tx) => read(tx, 'x'));
      assert.equal(
        Number(
          (
            await db
              .selectFrom('secret')
              .select((eb) => eb.fn.countAll<number>().as('count'))
              .executeTakeFirstOrThrow()
          ).count,
        ),
        Number(count) + 1,
      );
    });
  });
});

describe('Moving to PostgreSQL', { skip }, () => {
  async function filled(): Promise<Installation> {
    const installation = await Installation.create('sqlite');
    const server = await installation.start();
    const olivia = await official(server);
    const iTwinId = await server.iTwin();
    const made = await makeIModel(olivia, iTwinId, { changesets: 3, name: 'to be moved' });
    const { authorization } = olivia;
    await olivia.client.namedVersions.create({
      authorization,
      iModelId: made.id,
      namedVersionProperties: { name: 'one', changesetId: made.changesets[0]?.id ?? '' },
    });
    await olivia.client.iModels.clone({
      authorization,
      iModelId: made.id,
      iModelProperties: { iTwinId, name: 'clone', changesetIndex: 2 },
    });
    await server.grant(iTwinId, 'max', ['imodels_read']);
    await server.close();
    return installation;
  }

  test('the list of tables matches the database', async () => {
    const installation = await Installation.create('sqlite');
    const database = await openDatabase(installation.config());
    const { rows } = await sql<{
      name: string;
    }>`select name from sqlite_master where type = 'table' and name not like 'kysely%' and name not like 'sqlite%'`.execute(
      database.db,
    );
    assert.deepEqual([...tablesInOrder].sort(), rows.map(({ name }) => name).sort());
    await database.close();
    installation.remove();
  });

  test('copies every row, and the server continues there with all its data', async () => {
    const [source, target] = [await filled(), await Installation.create('postgres')];
    const cli = fileURLToPath(new URL('../apps/server/src/cli.ts', import.meta.url));
    const moved = await new Promise<{ code: number; stdout: string; stderr: string }>((resolve) => {
      const child = execFile(
        process.execPath,
        [cli, 'migrate-database', '--data', source.dataDir, '--to', target.databaseUrl ?? ''],
        { cwd: source.dataDir },
        (_error, stdout, stderr) => resolve({ code: child.exitCode ?? -1, stdout, stderr }),
      );
    });
    assert.equal(moved.code, 0, moved.stderr);
    assert.match(moved.stdout, /^\d+ rows copied and verified\./);
    const server = await source.start({ databaseUrl: target.databaseUrl as string });
    try {
      assert.equal(server.services.database.engine, 'postgres');
      const olivia = await official(server);
      const api = await server.as('olivia');
      const { iTwins } = (await api.get('/itwins')).body as { iTwins: { id: string }[] };
      const { iModels } = (await api.get(`/imodels?iTwinId=${iTwins[0]?.id}&$orderBy=name`)).body as {
        iModels: { id: string; displayName: string }[];
      };
      assert.deepEqual(
        iModels.map(({ displayName }) => displayName),
        ['clone', 'to be moved'],
      );
      const { changesets } = (
        await api.get(`/imodels/${iModels[0]?.id}/changesets`, { prefer: 'return=representation' })
      ).body as { changesets: { id: string; _links: { download: { href: string } } }[] };
      assert.equal(changesets.length, 2);
      for (const { _links } of changesets) assert.equal((await fetch(_links.download.href)).status, 200);
      const again = {
        id: iModels[1]?.id ?? '',
        iTwinId: '',
        name: '',
        briefcaseId: 0,
        changesets: changesets.map(({ id }, n) => ({ id, parentId: '', index: n + 1, bytes: Buffer.alloc(0) })),
      };
      const latest = ((await api.get(`/imodels/${again.id}/changesets/3`)).body as { changeset: { id: string } })
        .changeset.id;
      again.changesets.push({ id: latest, parentId: '', index: 3, bytes: Buffer.alloc(0) });
      await pushMore(olivia, again, 1);
      assert.equal(again.changesets.at(-1)?.index, 4);
    } finally {
      await server.close();
      source.remove();
      target.remove();
    }
  });

  test('refuses a target that is not empty, and commits nothing that differs', async () => {
    const [source, target] = [await filled(), await Installation.create('postgres')];
    const [from, to] = [await openDatabase(source.config()), await openDatabase(target.config())];
    try {
      // A row that the copy cannot store unchanged: the database modifies it on insert.
      await sql`create function spoil() returns trigger as $$ begin new.display_name = new.display_name || '!'; return new; end $$ language plpgsql`.execute(
        to.db,
      );
      await sql`create trigger spoil before insert on itwin for each row execute function spoil()`.execute(to.db);
      await assert.rejects(copyDatabase(from, to), CopyMismatchError);
      assert.deepEqual(await to.db.selectFrom('user_account').select('id').execute(), []);
      await sql`drop trigger spoil on itwin`.execute(to.db);
      await to.db.insertInto('secret').values({ name: randomUUID(), value: 'x' }).execute();
      await assert.rejects(copyDatabase(from, to), NotEmptyError);
    } finally {
      await from.close();
      await to.close();
      source.remove();
      target.remove();
    }
  });
});

describe(
  'Servers that start together on a new PostgreSQL database',
  { skip: engines.includes('postgres') ? false : 'there is no PostgreSQL' },
  () => {
    test('bring its schema up to date once, and all of them start', async () => {
      for (let round = 0; round < 3; round++) {
        const installation = await Installation.create('postgres');
        try {
          const opened = await Promise.allSettled(Array.from({ length: 6 }, () => openDatabase(installation.config())));
          for (const each of opened) if (each.status === 'fulfilled') await each.value.close();
          assert.deepEqual(
            opened.flatMap((each) => (each.status === 'rejected' ? [String(each.reason)] : [])),
            [],
          );
        } finally {
          installation.remove();
        }
      }
    });
  },
);
