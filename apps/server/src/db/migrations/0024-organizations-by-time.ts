import { sql, type Kysely, type Migration } from 'kysely';

/** An index for the first iTwin of an organization, deleted ones included. */
export function organizationsByTimeMigration(): Migration {
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      await sql`create index itwin_organization on itwin (organization_id, created_at)`.execute(db);
    },
  };
}
