import { sql, type Kysely, type Migration } from 'kysely';
import type { Engine } from '../engine.ts';
import { columnTypes } from './columnTypes.ts';

/** Webhooks, and further properties of iTwins: owners, user groups, repositories, an image and a time of deletion. */
export function eventsITwinsMigration(engine: Engine): Migration {
  const { text, int, strict, keyed } = columnTypes(engine);
  const statements = [
    `create table webhook (
      id ${text} primary key, itwin_id ${text} not null references itwin (id), callback_url ${text} not null, secret ${text} not null,
      event_types ${text} not null, is_active ${int} not null, creator_id ${text} not null, created_at ${int} not null) ${strict}`,
    `create index webhook_itwin on webhook (itwin_id)`,

    `create table owner (
      itwin_id ${text} not null references itwin (id), user_id ${text} not null references user_account (id),
      primary key (itwin_id, user_id)) ${keyed}`,
    `create index owner_user on owner (user_id)`,
    `insert into owner (itwin_id, user_id) select id, owner_id from itwin`,

    `create table user_group (
      id ${text} primary key, itwin_id ${text} not null references itwin (id), name ${text} not null, description ${text}) ${strict}`,
    `create index user_group_itwin on user_group (itwin_id)`,
    `create table group_user (
      group_id ${text} not null references user_group (id), user_id ${text} not null references user_account (id),
      primary key (group_id, user_id)) ${keyed}`,
    `create index group_user_user on group_user (user_id)`,
    `create table group_member (
      itwin_id ${text} not null references itwin (id), group_id ${text} not null references user_group (id),
      role_id ${text} not null references role (id), primary key (itwin_id, group_id, role_id)) ${keyed}`,
    `create index group_member_group on group_member (group_id)`,
    `create index group_member_role on group_member (role_id)`,

    `create table repository (
      id ${text} primary key, itwin_id ${text} not null references itwin (id), class ${text} not null, sub_class ${text},
      uri ${text} not null) ${strict}`,
    `create unique index repository_uri on repository (itwin_id, class, uri)`,
    `create table itwin_image (
      itwin_id ${text} primary key references itwin (id), id ${text} not null, small_blob_id ${text} not null references blob (id),
      large_blob_id ${text} not null references blob (id)) ${strict}`,
    `create index itwin_image_small on itwin_image (small_blob_id)`,
    `create index itwin_image_large on itwin_image (large_blob_id)`,

    // The name and number of a deleted iTwin can be reused at once; its row is removed after its iModels.
    `alter table itwin add column deleted_at ${int}`,
    `drop index itwin_display_name`,
    `drop index itwin_number`,
    `create unique index itwin_display_name on itwin (organization_id, sub_class, display_name) where deleted_at is null`,
    `create unique index itwin_number on itwin (organization_id, sub_class, number) where deleted_at is null`,
    `create index itwin_deleted on itwin (deleted_at) where deleted_at is not null`,

    `alter table changeset_group add column touched_at ${int}`,
  ];
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      for (const statement of statements) await sql.raw(statement).execute(db);
    },
  };
}
