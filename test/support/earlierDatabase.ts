import path from 'node:path';
import { Kysely, Migrator, PostgresDialect, type Dialect } from 'kysely';
import pg from 'pg';
import { databaseFile } from '../../apps/server/src/db/database.ts';
import type { Engine } from '../../apps/server/src/db/engine.ts';
import { migrationsFor } from '../../apps/server/src/db/migrations/index.ts';
import { sqliteDialect } from '../../apps/server/src/db/sqlite/dialect.ts';
import { Writer } from '../../apps/server/src/db/sqlite/writerQueue.ts';
import type { Installation } from './server.ts';

/** Opens the database of a new installation as the version before a migration left it, without rows. */
export async function openEarlier(
  installation: Installation,
  migration: string,
): Promise<{ db: Kysely<unknown>; engine: Engine }> {
  const { databaseUrl, dataDir } = installation;
  const engine = databaseUrl === undefined ? 'sqlite' : 'postgres';
  const file = path.join(dataDir, databaseFile);
  const dialect: Dialect =
    databaseUrl === undefined
      ? sqliteDialect(file, new Writer(file, { turnMs: 60_000, statementMs: 60_000 }))
      : new PostgresDialect({ pool: new pg.Pool({ connectionString: databaseUrl }) });
  const db = new Kysely<unknown>({ dialect });
  const migrations = Object.fromEntries(Object.entries(migrationsFor(engine)).filter(([name]) => name < migration));
  const { error } = await new Migrator({ db, provider: { getMigrations: async () => migrations } }).migrateToLatest();
  if (error !== undefined) throw error as Error;
  return { db, engine };
}
