import { sql, type RawBuilder } from 'kysely';
import type { Db } from '../database.ts';

/** The changesets of one segment that a history view sees, from first to last index. */
export interface HistoryRange {
  segment_id: string;
  first_index: number;
  last_index: number;
}

/** A value, or a column of an outer statement. */
type Value<T> = T | RawBuilder<T>;

/** A further column of a walk: a value of each history `h` that is visited, given the last index that is seen of it. */
interface WalkColumn {
  name: RawBuilder<unknown>;
  of: (lastIndex: RawBuilder<number>) => RawBuilder<unknown>;
}

/**
 * Walks a history from itself towards its beginning. It jumps over what lies above `last`, so that finding one index takes at most
 * about 2.3 log2(depth) steps, and then visits one history for each range. `last_index` is right from the first history that contains
 * indexes up to `last`.
 * @param onward whether the walk goes on beyond a row `w`
 */
function walk(
  historyId: Value<string>,
  last: Value<number>,
  onward: RawBuilder<unknown>,
  column?: WalkColumn,
): RawBuilder<unknown> {
  const row = (lastIndex: RawBuilder<number>, shown = lastIndex) => sql`h.id, h.segment_id, h.first_index, ${shown},
    h.parent_id, h.jump_id, h.jump_first_index${column === undefined ? sql`` : sql`, ${column.of(lastIndex)}`}`;
  const end = sql<number>`case when w.first_index > ${last} then ${last} else w.first_index - 1 end`;
  return sql`with recursive walk (id, segment_id, first_index, last_index, parent_id, jump_id, jump_first_index${
    column === undefined ? sql`` : sql`, ${column.name}`
  }) as (
    select ${row(sql`${last}`, sql`cast(${last} as bigint)`)} from history as h where h.id = ${historyId}
    union all
    select ${row(end)}
    from walk as w join history as h on h.id = case when w.jump_first_index > ${last} then w.jump_id else w.parent_id end
    where ${onward})`;
}

/** The walk to the history that contains `first`. */
function walkTo(historyId: Value<string>, first: Value<number>, last: Value<number>): RawBuilder<unknown> {
  return walk(historyId, last, sql`w.first_index > ${first}`);
}

/**
 * The ranges of a history that overlap the indexes `first` to `last`, clipped to them: a table for FROM, with one row for each segment,
 * in no particular order. To be joined by CROSS JOIN, which makes SQLite read it first.
 */
export function rangesOf(
  historyId: Value<string>,
  first: Value<number>,
  last: Value<number>,
): RawBuilder<HistoryRange> {
  return sql<HistoryRange>`(${walkTo(historyId, first, last)}
    select segment_id, case when first_index < ${first} then ${first} else first_index end as first_index, last_index
    from walk where first_index <= ${last})`;
}

/** The id of the history that contains the changeset with an index, of a history or one of its ancestors: a subquery. */
export function historyAt(historyId: Value<string>, index: Value<number>): RawBuilder<string> {
  return sql<string>`(${walkTo(historyId, index, index)} select id from walk where first_index <= ${index})`;
}

/** The segment that contains the changeset with an index: a subquery. */
export function segmentOf(historyId: Value<string>, index: Value<number>): RawBuilder<string> {
  return sql<string>`(${walkTo(historyId, index, index)} select segment_id from walk where first_index <= ${index})`;
}

/**
 * The ids of the histories whose views contain a changeset if their head is not before it: a table `(id)` for FROM. Those are the history
 * of its segment, and every history that was derived from it at that index or later.
 */
export function historiesWith(segmentId: Value<string>, index: Value<number>): RawBuilder<{ id: string }> {
  return sql<{ id: string }>`(with recursive below (id) as (
    select h.id from history as h where h.segment_id = ${segmentId} and h.first_index <= ${index}
    union all
    select h.id from below as b join history as h on h.parent_id = b.id and h.first_index > ${index})
    select id from below)`;
}

/** Query for the iModels `m` that see a changeset. */
export function iModelsWith(db: Db, segmentId: string, index: number) {
  return db
    .selectFrom(historiesWith(segmentId, index).as('h'))
    .crossJoin('imodel as m')
    .whereRef('m.history_id', '=', 'h.id')
    .where('m.head_index', '>=', index)
    .where('m.deleted_at', 'is', null);
}

/**
 * The last index of a history up to `upTo` that has a checkpoint, and its segment: a table for FROM of one row or none. The walk ends at
 * the first one it finds, so its cost is the distance to that, in segments.
 * @param which `usable` checkpoints only (state `successful`), or those in `any` state
 */
export function lastCheckpoint(
  historyId: Value<string>,
  upTo: Value<number>,
  which: 'usable' | 'any',
): RawBuilder<{ segment_id: string; changeset_index: number }> {
  return lastWith(historyId, upTo, sql`checkpoint`, which === 'usable' ? sql`and c.state = 'successful'` : sql``);
}

/** The same for the last changeset that has a picture. */
export function lastPicture(
  historyId: Value<string>,
  upTo: Value<number>,
): RawBuilder<{ segment_id: string; changeset_index: number }> {
  return lastWith(historyId, upTo, sql`graphics`, sql`and c.has_picture = 1`);
}

function lastWith(
  historyId: Value<string>,
  upTo: Value<number>,
  table: RawBuilder<unknown>,
  condition: RawBuilder<unknown>,
): RawBuilder<{ segment_id: string; changeset_index: number }> {
  const within = (last: RawBuilder<number>) => sql`(select c.changeset_index from ${table} as c
    where c.segment_id = h.segment_id ${condition} and c.changeset_index <= ${last}
    order by c.changeset_index desc limit 1)`;
  const found: WalkColumn = { name: sql`found`, of: within };
  return sql<{ segment_id: string; changeset_index: number }>`(${walk(historyId, upTo, sql`w.found is null`, found)}
    select segment_id, found as changeset_index from walk where found is not null)`;
}
