import { sql, type Kysely, type Migration } from 'kysely';

/** The audit log is read by time, and its oldest entries are removed. */
export function auditByTimeMigration(): Migration {
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      await sql`create index audit_at on audit (at, id)`.execute(db);
    },
  };
}
