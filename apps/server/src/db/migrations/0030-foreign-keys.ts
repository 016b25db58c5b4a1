import { sql, type Kysely, type Migration } from 'kysely';

/**
 * Indexes for checking foreign keys: the ones on `imodel.itwin_id` are partial, and a check cannot use those. Without them, deleting
 * one of 300 iTwins beside 100,000 iModels scanned all iModels. The thorough run of the collector looks for the keys of all stored files.
 */
export function foreignKeysMigration(): Migration {
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      // SQLite prefers it to the partial index `imodel_secured`, so it also finds the iModels with permissions of their own by a seek.
      await sql`create index imodel_itwin on imodel (itwin_id, secured_by)`.execute(db);
      await sql`create index blob_key on blob (key) where key is not null`.execute(db);
    },
  };
}
