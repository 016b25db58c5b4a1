import { sql, type Kysely, type Migration } from 'kysely';
import type { Engine } from '../engine.ts';
import { columnTypes } from './columnTypes.ts';

/** The user on whose behalf a job runs, for fair scheduling among users and their organizations. */
export function jobUsersMigration(engine: Engine): Migration {
  const { text } = columnTypes(engine);
  const statements = [
    `alter table job add column user_id ${text} not null default ''`,
    `update job set user_id = coalesce((select owner_id from itwin where itwin.id = job.tenant), '')`,
    `create index job_user on job (kind, state, user_id, run_at)`,
    `drop index job_due`,
    // Finds waits that started before the clock was set back.
    `create index job_ahead on job ((run_at - wait_ms)) where state = 'ready'`,
  ];
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      for (const statement of statements) await sql.raw(statement).execute(db);
    },
  };
}
