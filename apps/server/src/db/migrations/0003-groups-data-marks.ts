import { sql, type Kysely, type Migration } from 'kysely';
import type { Engine } from '../engine.ts';
import { columnTypes } from './columnTypes.ts';

/**
 * Changeset groups, extended data of changesets, and the favorites and recents of users. They are keyed by iModel and index, never
 * by changeset row, because clones share those rows and must not see this data.
 */
export function groupsDataMarksMigration(engine: Engine): Migration {
  const { text, int, strict, keyed } = columnTypes(engine);
  const statements = [
    `create table changeset_group (
      id ${text} primary key, imodel_id ${text} not null references imodel (id), state ${text} not null, description ${text},
      creator_id ${text} not null, created_at ${int} not null) ${strict}`,
    `create index changeset_group_imodel on changeset_group (imodel_id, created_at)`,
    `create table grouped_changeset (
      imodel_id ${text} not null references imodel (id), changeset_index ${int} not null, group_id ${text} not null,
      primary key (imodel_id, changeset_index)) ${keyed}`,
    `alter table pending_changeset add column group_id ${text}`,
    `create table extended_data (
      imodel_id ${text} not null references imodel (id), changeset_index ${int} not null, changeset_id ${text} not null,
      data ${text} not null, primary key (imodel_id, changeset_index)) ${keyed}`,
    `create table mark (
      user_id ${text} not null, kind ${text} not null, subject ${text} not null, subject_id ${text} not null,
      marked_at ${int} not null, primary key (user_id, kind, subject, subject_id)) ${keyed}`,
    `create index mark_subject on mark (subject_id)`,
  ];
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      for (const statement of statements) await sql.raw(statement).execute(db);
    },
  };
}
