import { Kysely, PostgresDialect, sql } from 'kysely';
import pg from 'pg';
import { statementMs, type PoolConfig } from '../limits.ts';
import { RetryingKysely } from '../retrying.ts';
import type { Schema } from '../schema.ts';
import { Pool } from './pool.ts';

/** How long after PostgreSQL's own statement timeout the client stops waiting for a response, milliseconds. */
const unansweredMs = 5000;

/** Opens the pools of a server. Connections are made when they are needed. */
export function openPostgres(url: string, config: PoolConfig) {
  const pool = openPool(url, config);
  const db = new RetryingKysely<Schema>(new PostgresDialect({ pool }));
  const watchDb = new Kysely<Schema>({
    dialect: new PostgresDialect({ pool: openPool(url, { ...config, databasePool: 1 }, { idleMs: 0 }) }),
  });
  const close = async (): Promise<void> => {
    await Promise.all([db.destroy(), watchDb.destroy()]);
  };
  return { db, watchDb, pool, close };
}

/** Key of the advisory lock under which one server at a time migrates a database. */
const migrationLock = 4_911_306;

/**
 * Migrates with connections without time limits, because creating an index on a large table can take long. One server does so at a
 * time: Kysely has a lock for each migration, but it reads the list of tables before it takes it, and that fails while another
 * server drops one of them.
 */
export async function migrateAlone(
  url: string,
  config: PoolConfig,
  migrate: (db: Kysely<Schema>) => Promise<void>,
): Promise<void> {
  // One connection holds the lock, for as long as its transaction is open, and the other one migrates.
  const db = new Kysely<Schema>({
    dialect: new PostgresDialect({ pool: openPool(url, { ...config, databasePool: 2 }, { limitMs: 0 }) }),
  });
  try {
    await db.transaction().execute(async (tx) => {
      await sql`select pg_advisory_xact_lock(${sql.lit(migrationLock)})`.execute(tx);
      await migrate(db);
    });
  } finally {
    await db.destroy();
  }
}

/**
 * @param options.limitMs maximum time of a statement and idle time within a transaction; 0 is unlimited
 * @param options.idleMs time after which an idle connection is closed; 0 keeps it open
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
    // Statements take milliseconds. One that hangs must not occupy its connection, and a dead client must not hold locks.
    statement_timeout: limitMs,
    idle_in_transaction_session_timeout: limitMs,
    // A statement that waits for a row lock occupies a connection of the pool.
    ...(limitMs > 0 && { lock_timeout: Math.round(databaseLockSeconds * 1000) }),
    // The client needs its own timeout: a frozen or unreachable database cannot cancel the statement.
    ...(limitMs > 0 && { query_timeout: limitMs + unansweredMs }),
    // Statements of one transaction may be sent before earlier ones are answered (`RetryingKysely`).
    pipeline: true,
    connectionTimeoutMillis: waitMs,
    idleTimeoutMillis: idleMs,
    keepAlive: true,
    // Counts and times are returned as int8; all of them are safe integers.
    types: {
      getTypeParser: ((oid: Parameters<typeof pg.types.getTypeParser>[0], format: 'text') =>
        Number(oid) === int8
          ? Number
          : (pg.types.getTypeParser(oid, format) as unknown)) as typeof pg.types.getTypeParser,
    },
  });
  // The next query replaces a lost connection. Without these listeners the loss of a connection that is idle, or between two
  // statements of a transaction, would terminate the process.
  pool.on('error', () => undefined);
  pool.on('connect', (client) => client.on('error', () => undefined));
  return new Pool(pool, databasePrepares, waitMs);
}
