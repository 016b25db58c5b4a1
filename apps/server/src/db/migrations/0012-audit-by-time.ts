import { sql, type Kysely, type Migration } from 'kysely';

/** An index of the audit log by time, for reading it and for deleting its oldest entries. */
export function auditByTimeMigration(): Migration {
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      await sql`create index audit_at on audit (at, id)`.execute(db);
    },
  };
}
