import { sql, type RawBuilder } from 'kysely';
import type { Database, Db } from '../db/database.ts';
import type { Schema } from '../db/schema.ts';
import { requestChecks, type OrphanKind } from './orphanChecks.ts';

type Table = keyof Schema;

/** How long an abandoned push is remembered. */
const abandonedMs = 24 * 3_600_000;

/** Orphans that one statement looks for or deletes. */
const atOnce = 200;

/**
 * When the rows of a table are orphans. `kept`: never, for the given reason. Otherwise under a condition on the table's own
 * columns that holds when nothing refers to the row; `by` says what removes such rows: a plain `deletion`, or a step of the
 * `collector` that does more than delete.
 */
type Rule = { kept: string } | OrphanRule;

type OrphanRule = { orphan: (before: number) => RawBuilder<boolean> } & (
  | { by: 'collector' }
  /** `key`: the column by whose values orphans are deleted, a few values at a time. */
  | { by: 'deletion'; key: string }
);

/** Rows that belong to one row of another table and are deleted with it. */
function partOf(parent: Table, column: string, parentColumn = 'id'): Rule {
  return {
    by: 'deletion',
    key: column,
    orphan: () =>
      sql<boolean>`not exists (select 1 from ${sql.table(parent)} as parent where parent.${sql.ref(parentColumn)} = ${sql.ref(column)})`,
  };
}

/** Rows that belong to a changeset of a segment, or to a baseline. */
function ofChangeset(table: 'checkpoint' | 'graphics'): Rule {
  const own = sql.table(table);
  return {
    by: 'deletion',
    key: 'id',
    orphan:
      () => sql<boolean>`(segment_id is not null and not exists (select 1 from changeset as c where c.segment_id = ${own}.segment_id and c."index" = changeset_index))
      or (baseline_id is not null and not exists (select 1 from baseline where baseline.id = ${own}.baseline_id))`,
  };
}

const withoutOwner = sql<boolean>`(owner_imodel_id is null or not exists (select 1 from imodel where imodel.id = owner_imodel_id))`;

/** Nothing was derived from a row of `deleted_imodel`, or all of that is gone too. */
export const withoutDerived = sql<boolean>`not exists (select 1 from imodel as m
    where m.lineage_id = coalesce(deleted_imodel.lineage_id, deleted_imodel.id) and m.source_id = deleted_imodel.id)
  and not exists (select 1 from deleted_imodel as d
    where d.lineage_id = coalesce(deleted_imodel.lineage_id, deleted_imodel.id) and d.source_id = deleted_imodel.id)`;

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
  ['graphics_file', 'blob_id'],
] as const;

/** The table of the subject of each kind of job. */
const jobSubjects: Record<string, Table> = {
  checkpoint: 'checkpoint',
  graphics: 'graphics',
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
  // Normally deleted with the last iModel that was derived from it.
  deleted_imodel: { by: 'deletion', key: 'id', orphan: () => withoutDerived },
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
  // Normally deleted with the iModel, or when its text changes. Deleted by key, as the table has no index on its other column.
  search_key: {
    by: 'deletion',
    key: 'key',
    orphan: () => sql<boolean>`not exists (select 1 from imodel where imodel.search_doc = doc)`,
  },
  pending_changeset: ofIModel,
  upload: partOf('blob', 'blob_id'),
  // Kept so that a client whose push was abandoned gets the reason.
  abandoned_push: {
    by: 'deletion',
    key: 'imodel_id',
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
    key: 'subject_id',
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
      sql<boolean>`created_at < ${before} and not exists (select 1 from imodel where imodel.history_id = history.id) and not exists (select 1 from transfer where transfer.history_id = history.id)
      and not exists (select 1 from history as child where child.parent_id = history.id)`,
  },
  segment: {
    by: 'collector',
    orphan: () =>
      sql<boolean>`${withoutOwner} and not exists (select 1 from history as h where h.segment_id = segment.id) and not exists (select 1 from changeset as c where c.segment_id = segment.id)`,
  },
  // Changesets of an orphaned segment above every head that can see them.
  changeset: {
    by: 'collector',
    orphan: () => sql<boolean>`segment_id in (select id from segment where owner_imodel_id is null) and not exists (
      select 1 from history as h where h.segment_id = changeset.segment_id
      and (exists (select 1 from imodel where imodel.history_id = h.id and imodel.head_index >= changeset."index")
        or exists (select 1 from transfer where transfer.history_id = h.id and transfer.head_index >= changeset."index")
        or exists (select 1 from history as child where child.parent_id = h.id and child.first_index > changeset."index")))`,
  },
  checkpoint: ofChangeset('checkpoint'),
  graphics: ofChangeset('graphics'),
  graphics_file: partOf('graphics', 'graphics_id'),
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
    key: 'id',
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
  orphan_check: { kept: 'the collector deletes those it has made' },
  audit: { kept: 'the audit log is a permanent record' },
  secret: { kept: 'keys of the installation' },
  sign_in_password: { kept: 'passwords of users of the users file' },
  sign_in_state: { kept: 'the collector deletes what has expired' },
};

/** The tables whose rows can become orphans, and the conditions. */
function conditions(before: number): { table: Table; rule: OrphanRule; condition: RawBuilder<boolean> }[] {
  return (Object.entries(orphanRules) as [Table, Rule][]).flatMap(([table, rule]) =>
    'kept' in rule ? [] : [{ table, rule, condition: rule.orphan(before) }],
  );
}

function orphanOf(table: Table, before: number): RawBuilder<boolean> {
  const rule = orphanRules[table];
  return 'kept' in rule ? sql<boolean>`1 = 0` : rule.orphan(before);
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

/**
 * Deletes the orphans of all tables whose rule is `deletion`. They are looked for beside the requests, and deleted in steps.
 * @returns how many
 */
export async function deleteOrphans(
  { db, scans }: Pick<Database, 'db' | 'scans'>,
  before: number,
  signal: AbortSignal | undefined,
): Promise<number> {
  let deleted = 0;
  for (const { table, rule, condition } of conditions(before)) {
    if (rule.by !== 'deletion') continue;
    const key = sql.ref(rule.key);
    for (let keys: unknown[] | undefined; keys === undefined || keys.length === atOnce;) {
      signal?.throwIfAborted();
      const { rows } = await sql<{
        key: unknown;
      }>`select distinct ${key} as key from ${sql.table(table)} where ${condition}
        limit ${sql.lit(atOnce)}`.execute(scans);
      keys = rows.map((row) => row.key);
      if (keys.length === 0) break;
      const { numAffectedRows } =
        await sql`delete from ${sql.table(table)} where ${key} in (${sql.join(keys)}) and ${condition}`.execute(db);
      deleted += Number(numAffectedRows ?? 0n);
      // Something refers to them again, or they could not be deleted.
      if ((numAffectedRows ?? 0n) === 0n) break;
    }
  }
  return deleted;
}

/** Has every segment, model file and block that may be an orphan looked at, whether or not it was noted when it lost a reference. */
export async function requestOrphanChecks(
  { db, scans }: Pick<Database, 'db' | 'scans'>,
  before: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  const possible: [OrphanKind, Table, string, RawBuilder<boolean>][] = [
    ['segment', 'segment', 'id', withoutOwner],
    ['segment', 'history', 'segment_id', orphanOf('history', before)],
    ['modelFile', 'model_file', 'id', orphanOf('model_file', before)],
    ['block', 'block', 'id', orphanOf('block', before)],
  ];
  for (const [kind, table, column, condition] of possible) {
    let after = '';
    for (;;) {
      signal?.throwIfAborted();
      const key = sql.ref(column);
      const { rows } = await sql<{ key: string }>`select ${key} as key from ${sql.table(table)}
        where ${key} > ${after} and ${condition} order by ${key} limit ${sql.lit(atOnce)}`.execute(scans);
      const last = rows.at(-1);
      if (last === undefined) break;
      await requestChecks(
        db,
        kind,
        rows.map((row) => row.key),
      );
      after = last.key;
    }
  }
}

/** Ids of some orphans of a table whose rule is `collector`. */
export async function orphanIds(
  { scans }: Pick<Database, 'scans'>,
  table: 'blob' | 'baseline',
  before: number,
  limit: number,
): Promise<string[]> {
  const { rows } = await sql<{
    id: string;
  }>`select id from ${sql.table(table)} where ${orphanOf(table, before)} limit ${limit}`.execute(scans);
  return rows.map(({ id }) => id);
}
