import { sql, type Kysely, type Migration } from 'kysely';

/**
 * Indexes in the order of pages. Each holds all columns of the order, so that a page begins with one seek at its first item and reads
 * nothing but its items, wherever it lies in the list.
 */
export function listsInOrderMigration(): Migration {
  const statements = [
    // Finds whether an iTwin has iModels with permissions of their own.
    `create index imodel_secured on imodel (itwin_id) where secured_by is not null and deleted_at is null`,
    `create index itwin_created on itwin (organization_id, created_at, id) where deleted_at is null`,
    `create index itwin_named on itwin (organization_id, search_text, id) where deleted_at is null`,
    `drop index briefcase_acquired`,
    `create index briefcase_acquired on briefcase (imodel_id, acquired_at, briefcase_id)`,
    `create index briefcase_owner on briefcase (imodel_id, owner_id, acquired_at, briefcase_id)`,
    `drop index named_version_created`,
    `create index named_version_created on named_version (imodel_id, created_at, id)`,
    // The API lists shared locks before exclusive ones.
    `drop index object_lock_briefcase`,
    `create index object_lock_briefcase on object_lock (imodel_id, briefcase_id, level desc, object_id)`,
    `create index released_lock_level on released_lock (imodel_id, level, object_id, changeset_index)`,
    `drop index user_group_itwin`,
    `create index user_group_itwin on user_group (itwin_id, name, id)`,
    `drop index role_itwin`,
    `create index role_itwin on role (itwin_id, display_name, id)`,
    `create index mark_time on mark (user_id, kind, subject, marked_at, subject_id)`,
  ];
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      for (const statement of statements) await sql.raw(statement).execute(db);
    },
  };
}
