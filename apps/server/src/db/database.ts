import { existsSync, mkdirSync } from 'node:fs';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { Kysely, Migrator, PostgresDialect, type Transaction } from 'kysely';
import pg from 'pg';
import type { Config } from '../config.ts';
import { migrationsFor } from './migrations/index.ts';
import { Pool } from './postgres/pool.ts';
import { RetryingKysely } from './retrying.ts';
import type { Schema } from './schema.ts';
import { compactAtStart } from './sqlite/freeSpace.ts';
import { sqliteDialect } from './sqlite/dialect.ts';
import { Writer } from './sqlite/writerQueue.ts';
import type { Engine } from './engine.ts';

export type Db = Kysely<Schema>;
export type Tx = Transaction<Schema>;

/** Longest time that a statement may take, and that a transaction may wait for its next one. */
const statementMs = 60_000;
/** What a statement may take longer than PostgreSQL itself allows until it counts as not answered, ms. */
const unansweredMs = 5000;
/** How long a request waits for its turn to write on SQLite. */
const turnMs = 30_000;

/** Name of the embedded database in its data folder. */
export const databaseFile = 'offshoot.db';

/** The database of one server. */
export interface Database {
  readonly engine: Engine;
  readonly db: Db;
  /** The same by a connection of its own on PostgreSQL: tells whether the database answers, also while all others are taken. */
  readonly watchDb: Db;
  /** PostgreSQL only: the pool, for parts that speak to it themselves (rate limits). */
  readonly pool: Pool | undefined;
  /** SQLite only: the one connection that writes, for what is not a query. */
  readonly writer: Writer | undefined;
  close(): Promise<void>;
}

/** Thrown when the database was made by a newer Offshoot: going on could damage it. */
export class NewerSchemaError extends Error {
  constructor(cause: unknown) {
    super(
      'The database was made by a newer version of Offshoot. Start that version, or restore a backup made with this one.',
      { cause },
    );
    this.name = 'NewerSchemaError';
  }
}

/** Thrown when another server already runs on the data folder. */
export class DataFolderInUseError extends Error {
  constructor(folder: string) {
    super(`Another server runs on ${folder}. Stop it first, or start this one on another folder (--data).`);
    this.name = 'DataFolderInUseError';
  }
}

/**
 * Opens the database that the configuration names and brings its schema up to date. Any number of servers may do so at
 * once on PostgreSQL (an advisory lock orders them); on SQLite one server owns the folder.
 * @param how `beside a server`: for reading, where a server may run; the schema must be this version's
 * @throws NewerSchemaError, DataFolderInUseError; Error when the schema is an older one and must not be touched
 */
export async function openDatabase(
  config: Pick<Config, 'dataDir' | 'databaseUrl'> & PoolConfig,
  how: 'as the server' | 'beside a server' = 'as the server',
): Promise<Database> {
  const beside = how === 'beside a server';
  const database =
    config.databaseUrl === undefined ? openSqlite(config.dataDir, beside) : openPostgres(config.databaseUrl, config);
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
  return {
    engine: 'sqlite',
    db,
    watchDb: db,
    pool: undefined,
    writer,
    close: async () => {
      await db.destroy();
      await writer.close();
      lock?.close();
    },
  };
}

/**
 * Keeps others from a data folder, by an SQLite lock that the kernel drops with the process, however that ends.
 * @throws DataFolderInUseError
 */
export function lockFolder(folder: string): DatabaseSync {
  const lock = new DatabaseSync(path.join(folder, 'server.lock'), { timeout: 0 });
  try {
    // Exclusive mode keeps the lock that the first write takes.
    lock.exec('pragma locking_mode = exclusive; create table if not exists held (by integer); begin exclusive; commit');
    return lock;
  } catch {
    lock.close();
    throw new DataFolderInUseError(folder);
  }
}

function openPostgres(url: string, config: PoolConfig): Database {
  const pool = openPool(url, config);
  const db = new RetryingKysely<Schema>({ dialect: new PostgresDialect({ pool }) });
  const watchDb = new Kysely<Schema>({
    dialect: new PostgresDialect({ pool: openPool(url, { ...config, databasePool: 1 }, { idleMs: 0 }) }),
  });
  const close = async (): Promise<void> => {
    await Promise.all([db.destroy(), watchDb.destroy()]);
  };
  return { engine: 'postgres', db, watchDb, pool, writer: undefined, close };
}

type PoolConfig = Pick<Config, 'databasePool' | 'databasePrepares' | 'databaseWaitSeconds' | 'databaseLockSeconds'>;

/**
 * @param options.limitMs longest time of a statement, and of a transaction without one; 0 is none
 * @param options.idleMs after which a connection that nobody uses is closed; 0 keeps it
 */
function openPool(
  url: string,
  { databasePool, databasePrepares, databaseWaitSeconds, databaseLockSeconds }: PoolConfig,
  { limitMs = statementMs, idleMs = 10_000 } = {},
): Pool {
  const waitMs = databaseWaitSeconds * 1000;
  const int8 = 20;
  const pool = new pg.Pool({
    connectionString: url,
    max: databasePool,
    // A statement of ours takes milliseconds; one that hangs must not hold its connection, nor a dead client its locks.
    statement_timeout: limitMs,
    idle_in_transaction_session_timeout: limitMs,
    // Who waits for a row that somebody else has locked keeps a connection from everybody.
    ...(limitMs > 0 && { lock_timeout: Math.round(databaseLockSeconds * 1000) }),
    // A database that is frozen, or behind a broken network, cancels nothing.
    ...(limitMs > 0 && { query_timeout: limitMs + unansweredMs }),
    connectionTimeoutMillis: waitMs,
    idleTimeoutMillis: idleMs,
    keepAlive: true,
    // Counts and times come as int8; all of ours are safe integers.
    types: {
      getTypeParser: ((oid: number, format: 'text') =>
        oid === int8 ? Number : (pg.types.getTypeParser(oid, format) as unknown)) as typeof pg.types.getTypeParser,
    },
  });
  // A connection that dies is replaced at the next query; without a listener it would end the process, whether it is idle or
  // between two statements of a transaction.
  pool.on('error', () => undefined);
  pool.on('connect', (client) => client.on('error', () => undefined));
  return new Pool(pool, databasePrepares, waitMs);
}

function migratorOf(db: Kysely<Schema>, engine: Engine): Migrator {
  // Kysely orders what was executed by the time of day, which may have been set back since; the names are order enough.
  return new Migrator({
    db,
    allowUnorderedMigrations: true,
    provider: { getMigrations: async () => migrationsFor(engine) },
  });
}

async function requireCurrent({ db, engine }: Database): Promise<void> {
  const pending = (await migratorOf(db, engine).getMigrations()).filter(({ executedAt }) => executedAt === undefined);
  if (pending.length > 0)
    throw new Error(
      'The database is of an older version. Start this version of the server once, which brings it up to date.',
    );
}

/**
 * Brings the schema up to date, each migration and its record in a transaction of its own: one that is interrupted has not
 * happened, and those before it need not run again. An index of a large table may take longer than any request should, so
 * the limits of requests do not hold here.
 */
async function migrate(database: Database, config: PoolConfig & Pick<Config, 'databaseUrl'>): Promise<void> {
  if (config.databaseUrl === undefined)
    return database.writer?.withoutLimits(() => migrateStepwise(migratorOf(database.db, 'sqlite')));
  const db = new Kysely<Schema>({
    dialect: new PostgresDialect({
      pool: openPool(config.databaseUrl, { ...config, databasePool: 1 }, { limitMs: 0 }),
    }),
  });
  try {
    await migrateStepwise(migratorOf(db, 'postgres'));
  } finally {
    await db.destroy();
  }
}

async function migrateStepwise(migrator: Migrator): Promise<void> {
  for (;;) {
    // Another server may bring the schema up to date in the same moment; each step looks again, under the lock.
    const { error, results = [] } = await migrator.migrateUp();
    if (error !== undefined) {
      const fault =
        error instanceof Error ? error : new Error('the schema cannot be brought up to date', { cause: error });
      throw fault.message.includes('corrupted migrations') ? new NewerSchemaError(fault) : fault;
    }
    if (results.length === 0) return;
  }
}

/** Whether a statement failed because the row that it refers to is gone. */
export function isForeignKeyError(error: unknown): boolean {
  const { code, errcode } = error as { code?: unknown; errcode?: unknown };
  return code === '23503' || errcode === 787;
}

/** Whether a statement failed because a row with the same key is there. */
export function isUniqueError(error: unknown): boolean {
  const { code, errcode } = error as { code?: unknown; errcode?: unknown };
  return code === '23505' || errcode === 2067 || errcode === 1555;
}
