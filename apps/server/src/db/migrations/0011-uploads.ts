import { sql, type Kysely, type Migration } from 'kysely';
import type { Engine } from '../engine.ts';
import { columnTypes } from './columnTypes.ts';

/** Uploads that take long, are sent in blocks or are repeated; and abandoned pushes, so that their clients get the reason. */
export function uploadsMigration(engine: Engine): Migration {
  const { text, int, strict, keyed } = columnTypes(engine);
  const statements = [
    `create table upload (
      blob_id ${text} primary key references blob (id) on delete cascade, active_at ${int} not null,
      block_list_sha256 ${text}, block_sizes ${text}) ${strict}`,
    `create index upload_active on upload (active_at)`,

    `create table abandoned_push (
      imodel_id ${text} not null references imodel (id), changeset_id ${text} not null, briefcase_id ${int} not null,
      parent_id ${text} not null, blob_id ${text} not null, abandoned_at ${int} not null,
      primary key (imodel_id, changeset_id, briefcase_id)) ${keyed}`,
    `create index abandoned_push_blob on abandoned_push (blob_id)`,
    `create index abandoned_push_time on abandoned_push (abandoned_at)`,
  ];
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      for (const statement of statements) await sql.raw(statement).execute(db);
    },
  };
}
