import { PostgresAdapter, sql, type RawBuilder } from 'kysely';
import type { Db } from './database.ts';

/**
 * The time for whatever several servers compare, ms since 1970: on PostgreSQL that of the database, because the clocks of the
 * servers may differ; on SQLite, where one process runs, its own.
 */
export function databaseNow(db: Db): RawBuilder<number> {
  return isPostgres(db)
    ? sql<number>`(extract(epoch from clock_timestamp()) * 1000)::bigint`
    : sql<number>`${Date.now()}`;
}

/** Whether a connection or transaction is one of PostgreSQL. */
export function isPostgres(db: Db): boolean {
  return db.getExecutor().adapter instanceof PostgresAdapter;
}
