import { sql, type Kysely, type Migration } from 'kysely';
import type { Engine } from '../engine.ts';
import { columnTypes } from './columnTypes.ts';

/** The first schema: iTwins and permissions, iModels and their histories, blobs, create operations. */
export function initialMigration(engine: Engine): Migration {
  const { text, int, strict, keyed } = columnTypes(engine);
  const statements = [
    `create table user_account (
      id ${text} primary key, email ${text} not null, given_name ${text} not null, surname ${text} not null,
      organization_id ${text}, created_at ${int} not null) ${strict}`,
    `create index user_account_email on user_account (email)`,

    `create table itwin (
      id ${text} primary key, organization_id ${text}, owner_id ${text} not null references user_account (id),
      class ${text} not null, sub_class ${text} not null, type ${text}, number ${text} not null, display_name ${text} not null,
      search_text ${text} not null, geographic_location ${text}, data_center ${text} not null, status ${text} not null,
      parent_id ${text}, created_at ${int} not null) ${strict}`,
    `create unique index itwin_display_name on itwin (organization_id, sub_class, display_name)`,
    `create unique index itwin_number on itwin (organization_id, sub_class, number)`,
    `create index itwin_owner on itwin (owner_id)`,

    `create table role (
      id ${text} primary key, itwin_id ${text} not null references itwin (id), display_name ${text} not null,
      description ${text}, permissions ${text} not null) ${strict}`,
    `create index role_itwin on role (itwin_id)`,
    `create table member (
      itwin_id ${text} not null references itwin (id), user_id ${text} not null references user_account (id),
      role_id ${text} not null references role (id), primary key (itwin_id, user_id, role_id)) ${keyed}`,
    `create index member_user on member (user_id)`,
    `create index member_role on member (role_id)`,

    `create table blob (
      id ${text} primary key, store ${text} not null, key ${text}, size ${int} not null, sha256 ${text},
      state ${text} not null, created_at ${int} not null, released_at ${int}) ${strict}`,
    `create index blob_released on blob (released_at) where released_at is not null`,
    `create table baseline (
      id ${text} primary key, blob_id ${text} not null references blob (id), state ${text} not null,
      created_at ${int} not null) ${strict}`,
    `create index baseline_blob on baseline (blob_id)`,

    `create table segment (id ${text} primary key, owner_imodel_id ${text}) ${strict}`,
    `create index segment_orphan on segment (id) where owner_imodel_id is null`,
    `create index segment_owner on segment (owner_imodel_id)`,
    `create table changeset (
      segment_id ${text} not null references segment (id), "index" ${int} not null, id ${text} not null,
      parent_id ${text} not null, blob_id ${text} not null references blob (id), file_size ${int} not null,
      description ${text}, containing_changes ${int} not null, briefcase_id ${int} not null, creator_id ${text} not null,
      pushed_at ${int} not null, application_id ${text} not null, application_name ${text} not null,
      synchronization_info ${text}, primary key (segment_id, "index")) ${keyed}`,
    // For lookups by id: finds the id first, then the few segments that contain it.
    `create index changeset_id on changeset (id, segment_id)`,
    `create index changeset_creator on changeset (segment_id, creator_id, "index")`,
    `create index changeset_blob on changeset (blob_id)`,

    `create table history (id ${text} primary key, created_at ${int} not null) ${strict}`,
    `create table history_segment (
      history_id ${text} not null references history (id) on delete cascade, first_index ${int} not null,
      last_index ${int} not null, segment_id ${text} not null references segment (id),
      primary key (history_id, first_index)) ${keyed}`,
    `create index history_segment_segment on history_segment (segment_id)`,

    `create table imodel (
      id ${text} primary key, itwin_id ${text} not null references itwin (id), name ${text} not null,
      name_order ${text} not null, search_text ${text} not null, description ${text}, extent ${text},
      containers_enabled ${int} not null, geographic_crs ${text}, state ${text} not null,
      baseline_id ${text} not null references baseline (id), history_id ${text} references history (id),
      head_index ${int} not null, head_changeset_id ${text} not null, last_pushed_at ${int}, creator_id ${text} not null,
      created_at ${int} not null, clock ${int} not null, next_briefcase_id ${int} not null, secured_by ${text},
      deleted_at ${int}) ${strict}`,
    // Rule of the API: names are unique within an iTwin; the name of a deleted iModel can be reused at once.
    `create unique index imodel_name on imodel (itwin_id, name) where deleted_at is null`,
    `create index imodel_name_order on imodel (itwin_id, name_order, id) where deleted_at is null`,
    `create index imodel_created on imodel (itwin_id, created_at, id) where deleted_at is null`,
    `create index imodel_deleted on imodel (deleted_at) where deleted_at is not null`,
    `create index imodel_history on imodel (history_id)`,
    `create index imodel_baseline on imodel (baseline_id)`,

    `create table imodel_grant (
      imodel_id ${text} not null references imodel (id), holder_id ${text} not null, permissions ${text} not null,
      primary key (imodel_id, holder_id)) ${keyed}`,
    `create index imodel_grant_holder on imodel_grant (holder_id)`,
    `create table imodel_user (
      imodel_id ${text} not null references imodel (id), user_id ${text} not null references user_account (id),
      first_access_at ${int} not null, primary key (imodel_id, user_id)) ${keyed}`,

    `create table pending_changeset (
      imodel_id ${text} primary key references imodel (id), changeset_id ${text} not null, parent_id ${text} not null,
      briefcase_id ${int} not null, blob_id ${text} not null references blob (id), description ${text},
      containing_changes ${int} not null, creator_id ${text} not null, application_id ${text} not null,
      application_name ${text} not null, synchronization_info ${text}, created_at ${int} not null,
      lease_until ${int} not null) ${strict}`,
    `create index pending_changeset_blob on pending_changeset (blob_id)`,

    `create table briefcase (
      imodel_id ${text} not null references imodel (id), briefcase_id ${int} not null, owner_id ${text} not null,
      device_name ${text}, application_id ${text} not null, application_name ${text} not null,
      acquired_at ${int} not null, primary key (imodel_id, briefcase_id)) ${keyed}`,
    `create index briefcase_acquired on briefcase (imodel_id, acquired_at)`,

    `create table operation (
      id ${text} primary key, imodel_id ${text} not null references imodel (id), kind ${text} not null, state ${text} not null,
      cloned_from_imodel_id ${text}, cloned_from_changeset_id ${text}, changesets ${int} not null, failure_reason ${text},
      created_at ${int} not null, finished_at ${int}) ${strict}`,
    `create unique index operation_imodel on operation (imodel_id)`,

    `create table audit (
      id ${text} primary key, at ${int} not null, actor_id ${text} not null, application_id ${text} not null,
      action ${text} not null, itwin_id ${text} not null, imodel_id ${text}, detail ${text} not null) ${strict}`,
    // Rate limits may be lost in a power failure, so the table is unlogged; SQLite keeps them in a separate, non-durable file.
    ...(engine === 'postgres'
      ? [`create unlogged table rate_limit (key ${text} primary key, points ${int} not null, expire ${int})`]
      : []),
    `create table secret (name ${text} primary key, value ${text} not null) ${strict}`,
  ];

  return {
    async up(db: Kysely<unknown>): Promise<void> {
      for (const statement of statements) await sql.raw(statement).execute(db);
    },
  };
}
