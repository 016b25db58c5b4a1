import { sql, type RawBuilder } from 'kysely';
import type { Db } from '../database.ts';
import type { IModelTable } from '../schema.ts';
import { rangesOf } from './historyRanges.ts';

/** Bytes of files by who needs them. */
export interface Bytes {
  /** Only the iModel. */
  own: number;
  /** The iModel and others. */
  shared: number;
  /** A part of the two: files that were pushed to iModels that are deleted. */
  cloneOnly: number;
}

/** What a history view has in common with others. */
export interface CommonPart {
  /** The last index that something else needs too; 0 if nothing does. */
  sharedUpTo: number;
  /** The first index that was looked at. */
  first: number;
}

type View = Pick<IModelTable, 'id' | 'history_id' | 'head_index' | 'baseline_id'>;

interface Step {
  first_index: number;
  up_to: number;
  of_imodels: number | null;
  of_transfers: number | null;
  of_children: number | null;
}

/** The raw result of sums; a sum over no rows is null, and PostgreSQL returns sums as text. */
type Sums = Record<keyof Bytes, number | string | null>;

const bytesOf = (sums: Sums | undefined): Bytes => ({
  own: Number(sums?.own ?? 0),
  shared: Number(sums?.shared ?? 0),
  cloneOnly: Number(sums?.cloneOnly ?? 0),
});

/**
 * Walks from the history of an iModel towards its beginning, up to the first history that something else refers to: another iModel, a
 * transfer, or a history that was derived from it. Whatever refers to a history keeps what comes before it, so everything up to that
 * place is shared and everything after it is the iModel's own. The same references keep changesets from the collector.
 * @param histories how many to visit at most
 */
export async function commonPart(db: Db, imodel: View, histories: number): Promise<CommonPart> {
  const { rows } = await sql<Step>`with recursive path (id, first_index, parent_id, up_to, child_id, steps) as (
      select h.id, h.first_index, h.parent_id, cast(${imodel.head_index} as bigint), h.id, 0
      from history as h where h.id = ${imodel.history_id}
      union all
      select h.id, h.first_index, h.parent_id, case when p.up_to < p.first_index then p.up_to else p.first_index - 1 end, p.id, p.steps + 1
      from path as p join history as h on h.id = p.parent_id where p.steps < ${sql.lit(histories - 1)})
    select p.first_index, p.up_to,
      (select m.head_index from imodel as m where m.history_id = p.id and m.id <> ${imodel.id} order by m.head_index desc limit 1) as of_imodels,
      (select t.head_index from transfer as t where t.history_id = p.id and t.imodel_id <> ${imodel.id} order by t.head_index desc limit 1) as of_transfers,
      (select c.first_index from history as c where c.parent_id = p.id and c.id <> p.child_id order by c.first_index desc limit 1) as of_children
    from path as p order by p.steps`.execute(db);
  const first = Math.max(1, Number(rows.at(-1)?.first_index ?? 1));
  for (const row of rows) {
    const seen = [row.of_imodels, row.of_transfers, row.of_children === null ? null : Number(row.of_children) - 1]
      .filter((index) => index !== null)
      .map(Number);
    if (seen.length > 0)
      return { sharedUpTo: Math.min(Number(row.up_to), Math.max(Number(row.first_index) - 1, ...seen)), first };
  }
  return { sharedUpTo: 0, first };
}

/** The segments that an iModel sees, and whether the iModel that wrote each of them is gone: a table for FROM. */
function segmentsOf(imodel: View, first: number): RawBuilder<unknown> {
  return sql`(select r.segment_id, r.first_index, r.last_index, case when o.id is null then 1 else 0 end as ownerless
    from ${rangesOf(imodel.history_id ?? '', first, imodel.head_index)} as r
    join segment as s on s.id = r.segment_id left join imodel as o on o.id = s.owner_imodel_id and o.deleted_at is null) as g`;
}

/** Bytes of the changeset files from an index on. A transfer may have given two changesets one file. */
export async function changesetBytes(db: Db, imodel: View, common: CommonPart): Promise<Bytes> {
  if (imodel.history_id === null || imodel.head_index === 0) return bytesOf(undefined);
  const { rows } = await sql<Sums>`select sum(case when own = 1 then file_size else 0 end) as own,
      sum(case when own = 0 then file_size else 0 end) as shared,
      sum(case when ownerless = 1 then file_size else 0 end) as "cloneOnly"
    from (select c.file_size, g.ownerless,
        case when c."index" > ${common.sharedUpTo} and not exists (select 1 from changeset as d
          where d.blob_id = c.blob_id and (d.segment_id <> c.segment_id or d."index" <> c."index")) then 1 else 0 end as own
      from ${segmentsOf(imodel, common.first)} cross join changeset as c
      where c.segment_id = g.segment_id and c."index" between g.first_index and g.last_index) as f`.execute(db);
  return bytesOf(rows[0]);
}

/** The size of the baseline file, and whether the iModel is the only one that needs it. */
export async function baselineBytes(db: Db, imodel: View): Promise<Bytes> {
  const { rows } = await sql<{ size: number; blob_id: string; used: number }>`select f.size,
      case when b.id like 'seed-%'
        or exists (select 1 from imodel as m where m.baseline_id = b.id and m.id <> ${imodel.id} and m.deleted_at is null)
        or exists (select 1 from transfer as t where t.imodel_id <> ${imodel.id} and (t.baseline_id = b.id or t.from_baseline_id = b.id))
        or exists (select 1 from baseline as o where o.blob_id = b.blob_id and o.id <> b.id) then 1 else 0 end as used
    from baseline as b join blob as f on f.id = b.blob_id where b.id = ${imodel.baseline_id}`.execute(db);
  const size = Number(rows[0]?.size ?? 0);
  const used = Number(rows[0]?.used ?? 1) === 1;
  return { own: used ? 0 : size, shared: used ? size : 0, cloneOnly: 0 };
}

/**
 * Bytes of the blocks of checkpoints, each counted once. Blocks that are a part of the iModel's baseline file take no space of their
 * own. A block is the iModel's own if only files of its own checkpoints contain it.
 * @param limit of blocks in files that are read; `complete` is false if there are more
 */
export async function checkpointBytes(
  db: Db,
  imodel: View,
  common: CommonPart,
  { blockBytes, baselineIsOwn, limit }: { blockBytes: number; baselineIsOwn: boolean; limit: number },
): Promise<{ bytes: Bytes; complete: boolean }> {
  const ofChangesets =
    imodel.history_id === null || imodel.head_index === 0
      ? sql``
      : sql`union all select k.file_id, case when k.changeset_index > ${common.sharedUpTo} then 1 else 0 end, g.ownerless
          from ${segmentsOf(imodel, common.first)} cross join checkpoint as k
          where k.segment_id = g.segment_id and k.changeset_index between g.first_index and g.last_index`;
  const { rows } = await sql<Sums & { read: number }>`with
    seen (file_id, own, ownerless) as (
      select k.file_id, cast(${baselineIsOwn ? 1 : 0} as integer), 0 from checkpoint as k where k.baseline_id = ${imodel.baseline_id}
      ${ofChangesets}),
    files (file_id, own, ownerless) as (
      select s.file_id, case when min(s.own) = 1 and count(*) = (select count(*) from checkpoint as k where k.file_id = s.file_id)
        then 1 else 0 end, min(s.ownerless)
      from seen as s where s.file_id is not null group by s.file_id),
    contained (block_id, own, ownerless, size) as (
      select b.block_id, f.own, f.ownerless,
        case when m.size - b.position * ${sql.lit(blockBytes)} < ${sql.lit(blockBytes)}
          then m.size - b.position * ${sql.lit(blockBytes)} else ${sql.lit(blockBytes)} end
      from files as f join model_file as m on m.id = f.file_id join model_file_block as b on b.file_id = f.file_id
      limit ${sql.lit(limit)}),
    blocks (block_id, own, ownerless, size, times) as (
      select block_id, min(own), min(ownerless), max(size), count(*) from contained group by block_id),
    counted (own, ownerless, size) as (
      select case when g.own = 1
          and not exists (select 1 from model_file_block as x where x.block_id = g.block_id
            and x.file_id not in (select file_id from files where own = 1))
          and not exists (select 1 from baseline as o where o.blob_id = b.blob_id) then 1 else 0 end, g.ownerless, g.size
      from blocks as g join block as b on b.id = g.block_id
      where b.blob_id not in (select blob_id from baseline where id = ${imodel.baseline_id}))
    select sum(case when own = 1 then size else 0 end) as own, sum(case when own = 0 then size else 0 end) as shared,
      sum(case when ownerless = 1 then size else 0 end) as "cloneOnly", (select sum(times) from blocks) as "read"
    from counted`.execute(db);
  return { bytes: bytesOf(rows[0]), complete: Number(rows[0]?.read ?? 0) < limit };
}

/** Bytes of the files of graphics. A transfer may have given several graphics one file. */
export async function graphicsBytes(db: Db, imodel: View, common: CommonPart, baselineIsOwn: boolean): Promise<Bytes> {
  const ofChangesets =
    imodel.history_id === null || imodel.head_index === 0
      ? sql``
      : sql`union all select k.id, case when k.changeset_index > ${common.sharedUpTo} then 1 else 0 end, g.ownerless
          from ${segmentsOf(imodel, common.first)} cross join graphics as k
          where k.segment_id = g.segment_id and k.changeset_index between g.first_index and g.last_index`;
  const { rows } = await sql<Sums>`with
    seen (graphics_id, own, ownerless) as (
      select k.id, cast(${baselineIsOwn ? 1 : 0} as integer), 0 from graphics as k where k.baseline_id = ${imodel.baseline_id}
      ${ofChangesets}),
    files (blob_id, own, ownerless, times) as (
      select f.blob_id, min(s.own), min(s.ownerless), count(*)
      from seen as s join graphics_file as f on f.graphics_id = s.graphics_id group by f.blob_id),
    counted (own, ownerless, size) as (
      select case when f.own = 1 and f.times = (select count(*) from graphics_file as o where o.blob_id = f.blob_id) then 1 else 0 end,
        f.ownerless, b.size
      from files as f join blob as b on b.id = f.blob_id)
    select sum(case when own = 1 then size else 0 end) as own, sum(case when own = 0 then size else 0 end) as shared,
      sum(case when ownerless = 1 then size else 0 end) as "cloneOnly" from counted`.execute(db);
  return bytesOf(rows[0]);
}

/** Bytes of the two pictures of the thumbnail, which no other iModel uses. */
export async function thumbnailBytes(db: Db, iModelId: string): Promise<Bytes> {
  const { rows } = await sql<{ size: number | null }>`select sum(b.size) as size from thumbnail as t
    join blob as b on b.id in (t.small_blob_id, t.large_blob_id) where t.imodel_id = ${iModelId}`.execute(db);
  return { own: Number(rows[0]?.size ?? 0), shared: 0, cloneOnly: 0 };
}
