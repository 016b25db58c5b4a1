import { sql, type RawBuilder } from 'kysely';
import type { Db } from '../db/database.ts';
import type { Schema } from '../db/schema.ts';

type Table = keyof Schema;

/** How long an abandoned push is remembered. */
const abandonedMs = 24 * 3_600_000;

/**
 * When the rows of a table are orphans. `kept`: never, for the given reason. Otherwise under a condition on the table's own
 * columns that holds when nothing refers to the row; `by` says what removes such rows: a plain `deletion`, or a step of the
 * `collector` that does more than delete.
 */
type Rule = { kept: string } | { orphan: (before: number) => RawBuilder<boolean>; by: 'deletion' | 'collector' };

/** Rows that belong to one row of another table and are deleted with it. */
function partOf(parent: Table, column: string, parentColumn = 'id'): Rule {
  return {
    by: 'deletion',
    orphan: () =>
      sql<boolean>`not exists (select 1 from ${sql.table(parent)} as parent where parent.${sql.ref(parentColumn)} = ${sql.ref(column)})`,
  };
}

const ofIModel = partOf('imodel', 'imodel_id');
const ofITwin = partOf('itwin', 'itwin_id');

const referredBlob = [
  ['changeset', 'blob_id'],
  ['baseline', 'blob_id'],
  ['pending_changeset', 'blob_id'],
  ['block', 'blob_id'],
  ['thumbnail', 'small_blob_id'],
  ['thumbnail', 'large_blob_id'],
  ['itwin_image', 'small_blob_id'],
  ['itwin_image', 'large_blob_id'],
] as const;

/** The table of the subject of each kind of job. */
const jobSubjects: Record<string, Table> = {
  checkpoint: 'checkpoint',
  derive: 'imodel',
  transferFiles: 'imodel',
  transferCheckpoints: 'imodel',
  deliver: 'webhook',
};

/** One rule for every table. A new table without one does not compile, and a test compares the list with the database. */
export const orphanRules: Record<Table, Rule> = {
  user_account: { kept: 'users stay known as creators' },
  itwin: { kept: 'the collector purges deleted ones' },
  imodel: { kept: 'the collector purges deleted ones' },
  role: ofITwin,
  member: ofITwin,
  owner: ofITwin,
  user_group: ofITwin,
  group_user: partOf('user_group', 'group_id'),
  group_member: ofITwin,
  repository: ofITwin,
  webhook: ofITwin,
  itwin_image: ofITwin,
  imodel_grant: ofIModel,
  imodel_user: ofIModel,
  push_count: ofIModel,
  pending_changeset: ofIModel,
  upload: partOf('blob', 'blob_id'),
  // Kept so that a client whose push was abandoned gets the reason.
  abandoned_push: {
    by: 'deletion',
    orphan: (before) =>
      sql<boolean>`abandoned_at < ${before - abandonedMs} or not exists (select 1 from imodel where imodel.id = imodel_id)`,
  },
  briefcase: ofIModel,
  named_version: ofIModel,
  object_lock: ofIModel,
  released_lock: ofIModel,
  changeset_group: ofIModel,
  grouped_changeset: ofIModel,
  extended_data: ofIModel,
  thumbnail: ofIModel,
  share: ofIModel,
  transfer: ofIModel,
  operation: ofIModel,
  mark: {
    by: 'deletion',
    orphan: () =>
      sql<boolean>`not exists (select 1 from imodel where imodel.id = subject_id) and not exists (select 1 from itwin where itwin.id = subject_id)`,
  },
  // A blob that no table refers to is marked as released; its bytes are deleted after the grace period.
  blob: {
    by: 'collector',
    orphan: (before) =>
      sql<boolean>`released_at is null and created_at < ${before} and ${sql.join(
        referredBlob.map(
          ([table, column]) =>
            sql`not exists (select 1 from ${sql.table(table)} as referring where referring.${sql.ref(column)} = blob.id)`,
        ),
        sql` and `,
      )}`,
  },
  // Seeds of this and other versions are kept for the next new iModel.
  baseline: {
    by: 'collector',
    orphan: (
      before,
    ) => sql<boolean>`created_at < ${before} and id not like 'seed-%' and not exists (select 1 from imodel where imodel.baseline_id = baseline.id)
      and not exists (select 1 from transfer where transfer.baseline_id = baseline.id or transfer.from_baseline_id = baseline.id)`,
  },
  history: {
    by: 'collector',
    orphan: (before) =>
      sql<boolean>`created_at < ${before} and not exists (select 1 from imodel where imodel.history_id = history.id) and not exists (select 1 from transfer where transfer.history_id = history.id)`,
  },
  history_segment: partOf('history', 'history_id'),
  segment: {
    by: 'collector',
    orphan:
      () => sql<boolean>`(owner_imodel_id is null or not exists (select 1 from imodel where imodel.id = owner_imodel_id))
      and not exists (select 1 from history_segment as h where h.segment_id = segment.id) and not exists (select 1 from changeset as c where c.segment_id = segment.id)`,
  },
  // Changesets of an orphaned segment above every head that can see them.
  changeset: {
    by: 'collector',
    orphan: () => sql<boolean>`segment_id in (select id from segment where owner_imodel_id is null) and not exists (
      select 1 from history_segment as h where h.segment_id = changeset.segment_id and h.first_index <= changeset."index" and h.last_index >= changeset."index"
      and (exists (select 1 from imodel where imodel.history_id = h.history_id and imodel.head_index >= changeset."index")
        or exists (select 1 from transfer where transfer.history_id = h.history_id and transfer.head_index >= changeset."index")))`,
  },
  checkpoint: {
    by: 'deletion',
    orphan:
      () => sql<boolean>`(segment_id is not null and not exists (select 1 from changeset as c where c.segment_id = checkpoint.segment_id and c."index" = changeset_index))
      or (baseline_id is not null and not exists (select 1 from baseline where baseline.id = checkpoint.baseline_id))`,
  },
  model_file: {
    by: 'collector',
    orphan: (before) =>
      sql<boolean>`created_at < ${before} and not exists (select 1 from checkpoint where checkpoint.file_id = model_file.id)`,
  },
  model_file_block: partOf('model_file', 'file_id'),
  block: {
    by: 'collector',
    orphan: (before) =>
      sql<boolean>`not exists (select 1 from model_file_block as f where f.block_id = block.id) and exists (select 1 from blob where blob.id = block.blob_id and blob.created_at < ${before})`,
  },
  job: {
    by: 'deletion',
    orphan: () =>
      sql<boolean>`state <> 'running' and (${sql.join(
        Object.entries(jobSubjects).map(
          ([kind, table]) =>
            sql`(kind = ${kind} and not exists (select 1 from ${sql.table(table)} as subject where subject.id = subject_id))`,
        ),
        sql` or `,
      )})`,
  },
  repeatable_request: { kept: 'the collector deletes expired ones' },
  audit: { kept: 'the audit log is a permanent record' },
  secret: { kept: 'keys of the installation' },
};

/** The tables whose rows can become orphans, and the conditions. */
function conditions(before: number): { table: Table; by: 'deletion' | 'collector'; condition: RawBuilder<boolean> }[] {
  return (Object.entries(orphanRules) as [Table, Rule][]).flatMap(([table, rule]) =>
    'kept' in rule ? [] : [{ table, by: rule.by, condition: rule.orphan(before) }],
  );
}

/**
 * Counts the orphans of each table; tables without any are left out.
 * @param before ms since 1970; younger rows may still get a reference and are not counted
 */
export async function countOrphans(db: Db, before: number): Promise<Partial<Record<Table, number>>> {
  const found: Partial<Record<Table, number>> = {};
  for (const { table, condition } of conditions(before)) {
    const { rows } = await sql<{
      count: number;
    }>`select count(*) as count from ${sql.table(table)} where ${condition}`.execute(db);
    const count = Number(rows[0]?.count ?? 0);
    if (count > 0) found[table] = count;
  }
  return found;
}

/** Deletes the orphans of all tables whose rule is `deletion`. @returns how many */
export async function deleteOrphans(db: Db, before: number, signal: AbortSignal | undefined): Promise<number> {
  let deleted = 0;
  for (const { table, by, condition } of conditions(before)) {
    if (by !== 'deletion') continue;
    signal?.throwIfAborted();
    const { numAffectedRows } = await sql`delete from ${sql.table(table)} where ${condition}`.execute(db);
    deleted += Number(numAffectedRows ?? 0n);
  }
  return deleted;
}

/** Ids of some orphans of a table whose rule is `collector`. */
export async function orphanIds(
  db: Db,
  table: 'blob' | 'baseline' | 'segment' | 'history',
  before: number,
  limit: number,
): Promise<string[]> {
  const rule = orphanRules[table];
  if ('kept' in rule) return [];
  const { rows } = await sql<{
    id: string;
  }>`select id from ${sql.table(table)} where ${rule.orphan(before)} limit ${limit}`.execute(db);
  return rows.map(({ id }) => id);
}
