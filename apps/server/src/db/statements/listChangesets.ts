import { sql } from 'kysely';
import { bytesOf } from '../keysetPaging.ts';
import type { Database } from '../database.ts';
import type { ChangesetTable } from '../schema.ts';
import type { HistoryView } from './segmentAt.ts';

/** The requested range and number of changesets. */
export interface ChangesetPage {
  first: number;
  last: number;
  limit: number;
  descending: boolean;
}

/**
 * Up to `limit` changesets that an iModel sees with `first` <= index <= `last`, in order of index.
 *
 * PostgreSQL: `CROSS JOIN LATERAL (… LIMIT n)` for each range of the history, else it joins and sorts the whole history
 * for every page (37 ms against 0.7 ms at 100,000 changesets). SQLite has no LATERAL; it scans both primary keys in order and stops at the
 * limit. The bounds of the range and of the page are combined into one comparison: with two, it would use one and scan to the
 * other (2.8 ms against 0.3 ms in the middle of 100,000 changesets).
 */
export async function listChangesets(
  database: Pick<Database, 'db' | 'engine'>,
  view: HistoryView,
  page: ChangesetPage,
): Promise<ChangesetTable[]> {
  return (await listed(database, view, page)?.selectAll('c').execute()) ?? [];
}

/** Bytes of the synchronization info of the same changesets. */
export async function listedSizes(
  database: Pick<Database, 'db' | 'engine'>,
  view: HistoryView,
  page: ChangesetPage,
): Promise<number[]> {
  return (
    (await listed(database, view, page)
      ?.select(bytesOf(['c.synchronization_info']))
      .execute()) ?? []
  ).map(({ bytes }) => bytes);
}

function listed({ db, engine }: Pick<Database, 'db' | 'engine'>, view: HistoryView, page: ChangesetPage) {
  const { first, descending } = page;
  const last = Math.min(page.last, view.head_index);
  if (view.history_id === null || first > last) return undefined;
  const direction = descending ? 'desc' : 'asc';

  if (engine === 'sqlite')
    return db
      .selectFrom('history_segment as h')
      .innerJoin('changeset as c', 'c.segment_id', 'h.segment_id')
      .where('h.history_id', '=', view.history_id)
      .where('h.last_index', '>=', first)
      .where('h.first_index', '<=', last)
      .where('c.index', '>=', sql<number>`max(h.first_index, ${first})`)
      .where('c.index', '<=', sql<number>`min(h.last_index, ${last})`)
      .orderBy('h.first_index', direction)
      .orderBy('c.index', direction)
      .limit(page.limit);

  return db
    .selectFrom('history_segment as h')
    .crossJoinLateral((eb) =>
      eb
        .selectFrom('changeset')
        .selectAll('changeset')
        .whereRef('changeset.segment_id', '=', 'h.segment_id')
        .where('changeset.index', '>=', sql<number>`greatest(h.first_index, ${first}::bigint)`)
        .where('changeset.index', '<=', sql<number>`least(h.last_index, ${last}::bigint)`)
        .orderBy('changeset.index', direction)
        .limit(page.limit)
        .as('c'),
    )
    .where('h.history_id', '=', view.history_id)
    .where('h.last_index', '>=', first)
    .where('h.first_index', '<=', last)
    .orderBy('h.first_index', direction)
    .orderBy('c.index', direction)
    .limit(page.limit);
}
