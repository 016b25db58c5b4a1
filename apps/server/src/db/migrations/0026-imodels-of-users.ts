import { sql, type Kysely, type Migration } from 'kysely';

/** An index for the iModels that a user has opened. */
export function iModelsOfUsersMigration(): Migration {
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      await sql`create index imodel_user_user on imodel_user (user_id, imodel_id)`.execute(db);
    },
  };
}
