import { sql, type Kysely, type Migration } from 'kysely';
import type { Engine } from '../database.ts';
import { columnTypes } from './columnTypes.ts';

/** Answers to POST requests that may be repeated. */
export function idempotencyMigration(engine: Engine): Migration {
  const { text, int, strict } = columnTypes(engine);
  const statements = [
    `create table repeatable_request (
      id ${text} primary key, fingerprint ${text} not null, run_id ${text} not null, lease_until ${int} not null,
      outcomes ${text}, answer ${text}, made ${text}, expires_at ${int} not null) ${strict}`,
    `create index repeatable_request_expires on repeatable_request (expires_at)`,
  ];
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      for (const statement of statements) await sql.raw(statement).execute(db);
    },
  };
}
