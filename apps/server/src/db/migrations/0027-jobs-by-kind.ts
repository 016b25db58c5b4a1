import { sql, type Kysely, type Migration } from 'kysely';

/** An index for the oldest waiting job of each kind. */
export function jobsByKindMigration(): Migration {
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      await sql`create index job_ready on job (kind, run_at) where state = 'ready'`.execute(db);
    },
  };
}
