import { sql, type Kysely, type Migration } from 'kysely';
import type { Engine } from '../engine.ts';
import { columnTypes } from './columnTypes.ts';

/**
 * Graphics of checkpoints: what a viewer shows, and a picture. Like a checkpoint they belong to a changeset of a segment or to a
 * baseline, so every iModel that sees the changeset shares them.
 */
export function graphicsMigration(engine: Engine): Migration {
  const { text, int, strict, keyed } = columnTypes(engine);
  const statements = [
    `create table graphics (
      id ${text} primary key, segment_id ${text} references segment (id), baseline_id ${text} references baseline (id),
      changeset_index ${int} not null, state ${text} not null, failure_reason ${text}, summary ${text},
      has_picture ${int} not null, created_at ${int} not null, finished_at ${int}) ${strict}`,
    `create unique index graphics_changeset on graphics (segment_id, changeset_index) where segment_id is not null`,
    `create unique index graphics_baseline on graphics (baseline_id) where baseline_id is not null`,
    // Finds the nearest earlier picture.
    `create index graphics_picture on graphics (segment_id, changeset_index) where has_picture = 1`,
    `create table graphics_file (
      graphics_id ${text} not null references graphics (id) on delete cascade, kind ${text} not null, position ${int} not null,
      blob_id ${text} not null references blob (id), detail ${text}, primary key (graphics_id, kind, position)) ${keyed}`,
    // Finds the references to a blob, which is deleted only if there are none.
    `create index graphics_file_blob on graphics_file (blob_id)`,
  ];
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      for (const statement of statements) await sql.raw(statement).execute(db);
    },
  };
}
