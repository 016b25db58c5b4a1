import { sql, type Kysely, type Migration } from 'kysely';
import type { Engine } from '../engine.ts';
import { columnTypes } from './columnTypes.ts';

/**
 * Jobs, and checkpoints: the iModel file at one changeset, split into blocks. A checkpoint belongs to a changeset of a segment or
 * to a baseline, never to an iModel, so that all iModels that see the changeset share the checkpoint.
 */
export function jobsCheckpointsMigration(engine: Engine): Migration {
  const { text, int, strict, keyed } = columnTypes(engine);
  const statements = [
    `create table job (
      id ${text} primary key, kind ${text} not null, subject_id ${text} not null, tenant ${text} not null, payload ${text} not null,
      state ${text} not null, run_at ${int} not null, attempt ${int} not null, lease_owner ${text}, lease_until ${int},
      last_error ${text}, created_at ${int} not null) ${strict}`,
    `create index job_due on job (kind, state, run_at)`,
    `create index job_subject on job (subject_id, kind)`,

    `create table block (
      id ${text} primary key, sha256 ${text} not null, blob_id ${text} not null references blob (id), start ${int} not null) ${strict}`,
    `create unique index block_sha256 on block (sha256)`,
    `create index block_blob on block (blob_id)`,
    `create table model_file (
      id ${text} primary key, size ${int} not null, imodel_id_offset ${int} not null, itwin_id_offset ${int} not null,
      created_at ${int} not null) ${strict}`,
    `create table model_file_block (
      file_id ${text} not null references model_file (id), position ${int} not null, block_id ${text} not null references block (id),
      primary key (file_id, position)) ${keyed}`,
    `create index model_file_block_block on model_file_block (block_id)`,

    `create table checkpoint (
      id ${text} primary key, segment_id ${text} references segment (id), baseline_id ${text} references baseline (id),
      changeset_index ${int} not null, state ${text} not null, file_id ${text} references model_file (id),
      applied ${int} not null, to_apply ${int} not null, failure_reason ${text}, created_at ${int} not null, finished_at ${int}) ${strict}`,
    `create unique index checkpoint_changeset on checkpoint (segment_id, changeset_index) where segment_id is not null`,
    `create unique index checkpoint_baseline on checkpoint (baseline_id) where baseline_id is not null`,
    `create index checkpoint_file on checkpoint (file_id)`,

    `alter table operation add column forked_from_imodel_id ${text}`,
    `alter table operation add column forked_from_changeset_id ${text}`,
    `alter table operation add column relationship_id ${text}`,
  ];
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      for (const statement of statements) await sql.raw(statement).execute(db);
    },
  };
}
