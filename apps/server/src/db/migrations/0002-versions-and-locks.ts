import { sql, type Kysely, type Migration } from 'kysely';
import type { Engine } from '../engine.ts';
import { columnTypes } from './columnTypes.ts';

/** Named versions, locks, and the changesets at which locks were last released. Each belongs to one iModel; clones do not share them. */
export function versionsAndLocksMigration(engine: Engine): Migration {
  const { text, int, strict, keyed } = columnTypes(engine);
  const statements = [
    `create table named_version (
      id ${text} primary key, imodel_id ${text} not null references imodel (id), name ${text} not null,
      search_text ${text} not null, description ${text}, changeset_index ${int} not null, changeset_id ${text} not null,
      state ${text} not null, creator_id ${text} not null, application_id ${text} not null, application_name ${text} not null,
      created_at ${int} not null) ${strict}`,
    // Rules of the API: names are unique within an iModel, and a changeset has at most one version.
    `create unique index named_version_name on named_version (imodel_id, name)`,
    `create unique index named_version_changeset on named_version (imodel_id, changeset_index)`,
    `create index named_version_created on named_version (imodel_id, created_at)`,

    `create table object_lock (
      imodel_id ${text} not null references imodel (id), object_id ${text} not null, briefcase_id ${int} not null,
      level ${text} not null, primary key (imodel_id, object_id, briefcase_id)) ${keyed}`,
    `create index object_lock_briefcase on object_lock (imodel_id, briefcase_id, level, object_id)`,
    `create table released_lock (
      imodel_id ${text} not null references imodel (id), object_id ${text} not null, level ${text} not null,
      changeset_index ${int} not null, primary key (imodel_id, object_id)) ${keyed}`,
  ];
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      for (const statement of statements) await sql.raw(statement).execute(db);
    },
  };
}
