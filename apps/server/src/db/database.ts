import { existsSync, mkdirSync } from 'node:fs';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { DEFAULT_MIGRATION_TABLE, Kysely, Migrator, sql, type Transaction } from 'kysely';
import type { Config } from '../config.ts';
import { migrationsFor } from './migrations/index.ts';
import type { Pool } from './postgres/pool.ts';
import { statementMs, type PoolConfig } from './limits.ts';
import type { Schema } from './schema.ts';
import { compactAtStart } from './sqlite/freeSpace.ts';
import { sqliteDialect, sqliteScanDialect } from './sqlite/dialect.ts';
import { StatementThread } from './sqlite/statementThread.ts';
import { Writer } from './sqlite/writerQueue.ts';
import type { Engine } from './engine.ts';

export type Db = Kysely<Schema>;
export type Tx = Transaction<Schema>;

/** How long a request waits for the SQLite writer, milliseconds. */
const turnMs = 30_000;

/** File name of the embedded database in the data folder. */
export const databaseFile = 'offshoot.db';

/** The database of one server. */
export interface Database {
  readonly engine: Engine;
  readonly db: Db;
  /** On PostgreSQL a separate connection for health checks, which works even if the pool is exhausted; on SQLite the same as `db`. */
  readonly watchDb: Db;
  /** The same database for reads that may walk many rows: on SQLite a thread executes them, so that no request waits for them. */
  readonly scans: Db;
  /** PostgreSQL only: the pool, for direct queries (rate limits). */
  readonly pool: Pool | undefined;
  /** SQLite only: the writing side, for operations that are not queries. */
  readonly writer: Writer | undefined;
  /** SQLite only: resolves when everything that a read can see now is durable; undefined if it is. On PostgreSQL it always is. */
  readonly settling: Promise<void> | undefined;
  close(): Promise<void>;
}

/** The database was created by a newer version of Offshoot; using it could damage it. */
export class NewerSchemaError extends Error {
  constructor(cause: unknown) {
    super(
      'The database was made by a newer version of Offshoot. Start that version, or restore a backup made with this one.',
      { cause },
    );
    this.name = 'NewerSchemaError';
  }
}

/** Another server is already running on the data folder. */
export class DataFolderInUseError extends Error {
  constructor(folder: string) {
    super(`Another server runs on ${folder}. Stop it first, or start this one on another folder (--data).`);
    this.name = 'DataFolderInUseError';
  }
}

/**
 * Opens the configured database and migrates its schema. On PostgreSQL any number of servers may do so concurrently, which
 * an advisory lock serializes; on SQLite one server owns the data folder.
 * @param how `beside a server`: for commands that read while a server may be running; the schema must be current
 * @throws NewerSchemaError, DataFolderInUseError; Error if `beside a server` finds an older schema, which it must not migrate
 */
export async function openDatabase(
  config: Pick<Config, 'dataDir' | 'databaseUrl'> & PoolConfig,
  how: 'as the server' | 'beside a server' = 'as the server',
): Promise<Database> {
  const beside = how === 'beside a server';
  const database =
    config.databaseUrl === undefined
      ? openSqlite(config.dataDir, beside)
      : await openPostgres(config.databaseUrl, config);
  try {
    await (beside ? requireCurrent(database) : migrate(database, config));
    if (!beside && database.writer !== undefined)
      await compactAtStart(database.writer, path.join(config.dataDir, databaseFile));
    return database;
  } catch (error) {
    await database.close();
    throw error;
  }
}

function openSqlite(folder: string, beside: boolean): Database {
  const file = path.join(folder, databaseFile);
  if (beside && !existsSync(file)) throw new Error(`there is no installation at ${folder}`);
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const lock = beside ? undefined : lockFolder(folder);
  const writer = new Writer(file, { turnMs, statementMs });
  const db = new Kysely<Schema>({ dialect: sqliteDialect(file, writer) });
  const scanThread = new StatementThread(file, 'reader', () => statementMs);
  const scans = new Kysely<Schema>({ dialect: sqliteScanDialect(scanThread) });
  return {
    engine: 'sqlite',
    db,
    watchDb: db,
    scans,
    pool: undefined,
    writer,
    get settling() {
      return writer.settling;
    },
    close: async () => {
      await scans.destroy();
      // A Kysely instance that was never used has no driver that could close it.
      await scanThread.close();
      await db.destroy();
      await writer.close();
      lock?.close();
    },
  };
}

async function openPostgres(url: string, config: PoolConfig): Promise<Database> {
  // Loaded only here: most desks run without PostgreSQL.
  const opened = (await import('./postgres/open.ts')).openPostgres(url, config);
  return { engine: 'postgres', ...opened, scans: opened.db, writer: undefined, settling: undefined };
}

/**
 * Locks a data folder against other servers, with an SQLite file lock, which the kernel releases however the process ends.
 * @throws DataFolderInUseError
 */
export function lockFolder(folder: string): DatabaseSync {
  const lock = new DatabaseSync(path.join(folder, 'server.lock'), { timeout: 0 });
  try {
    // In exclusive locking mode SQLite keeps the lock of the first write.
    lock.exec('pragma locking_mode = exclusive; create table if not exists held (by integer); begin exclusive; commit');
    return lock;
  } catch {
    lock.close();
    throw new DataFolderInUseError(folder);
  }
}

function migratorOf(db: Kysely<Schema>, engine: Engine): Migrator {
  // Kysely compares the order of executed migrations by their timestamps, which is wrong if the clock was set back. The order of their names is sufficient.
  return new Migrator({
    db,
    allowUnorderedMigrations: true,
    provider: { getMigrations: async () => migrationsFor(engine) },
  });
}

/**
 * Names of the migrations that a database has had, none for an empty one. The migrator knows them too, but first reads the
 * columns of all tables: 3 to 6 ms on SQLite, at every start, and before each of the migrations of an empty database.
 */
async function executedMigrations(db: Kysely<Schema>, engine: Engine): Promise<string[]> {
  const { rows: found } = await (
    engine === 'sqlite'
      ? sql`select 1 from sqlite_master where type = 'table' and name = ${DEFAULT_MIGRATION_TABLE}`
      : sql`select 1 where to_regclass(${DEFAULT_MIGRATION_TABLE}) is not null`
  ).execute(db);
  if (found.length === 0) return [];
  const { rows } = await sql<{ name: string }>`select name from ${sql.table(DEFAULT_MIGRATION_TABLE)}`.execute(db);
  return rows.map(({ name }) => name);
}

/** A command found a database in which no server has created its tables. */
export class EmptyDatabaseError extends Error {
  constructor() {
    super('The database is empty. Start the server once, which creates its tables.');
    this.name = 'EmptyDatabaseError';
  }
}

async function requireCurrent({ db, engine }: Database): Promise<void> {
  const executed = new Set(await executedMigrations(db, engine));
  if (executed.size === 0) throw new EmptyDatabaseError();
  if (Object.keys(migrationsFor(engine)).some((name) => !executed.has(name)))
    throw new Error(
      'The database is of an older version. Start this version of the server once, which brings it up to date.',
    );
}

/**
 * Migrates the schema. Each migration and its record share one transaction, so that an interrupted migration is rolled back
 * and completed ones are not repeated. The time limits of requests do not apply, because creating an index on a large table
 * can take longer.
 */
async function migrate(database: Database, config: PoolConfig & Pick<Config, 'databaseUrl'>): Promise<void> {
  if (config.databaseUrl === undefined)
    return database.writer?.withoutLimits(() => bringUpToDate(database.db, 'sqlite'));
  const { migrateAlone } = await import('./postgres/open.ts');
  await migrateAlone(config.databaseUrl, config, (db) => bringUpToDate(db, 'postgres'));
}

async function bringUpToDate(db: Kysely<Schema>, engine: Engine): Promise<void> {
  const executed = new Set(await executedMigrations(db, engine));
  const known = Object.keys(migrationsFor(engine));
  if (executed.size === known.length && known.every((name) => executed.has(name))) return;
  const migrator = migratorOf(db, engine);
  for (;;) {
    // All tables of an empty database are made in one transaction. A server of an earlier version may be migrating any other
    // at the same time; each step checks the state again under the lock.
    const { error, results = [] } = await (executed.size === 0 ? migrator.migrateToLatest() : migrator.migrateUp());
    if (error !== undefined) {
      const fault =
        error instanceof Error ? error : new Error('the schema cannot be brought up to date', { cause: error });
      throw fault.message.includes('corrupted migrations') ? new NewerSchemaError(fault) : fault;
    }
    if (results.length === 0) return;
  }
}

/** Whether a statement failed because a referenced row does not exist. */
export function isForeignKeyError(error: unknown): boolean {
  const { code, errcode } = error as { code?: unknown; errcode?: unknown };
  return code === '23503' || errcode === 787;
}

/** Whether a statement failed because a row with the same key exists. */
export function isUniqueError(error: unknown): boolean {
  const { code, errcode } = error as { code?: unknown; errcode?: unknown };
  return code === '23505' || errcode === 2067 || errcode === 1555;
}
