import type { ChangesetRef } from '../../domain.ts';
import { compiledQuery } from '../compiledQuery.ts';
import type { Db } from '../database.ts';
import type { ChangesetTable } from '../schema.ts';
import { segmentOf, type HistoryView } from './segmentAt.ts';

/**
 * A changeset that an iModel sees, by index or id; undefined if there is none.
 *
 * By index: one row of the history, then the primary key of the changeset: 0.02 ms at any depth of history. By id: the
 * index `(id, segment_id)` first, which finds the few segments that contain the id, then the range of each: starting
 * from the history instead would try every segment (58 ms at depth 1,000).
 */
export async function findChangeset(db: Db, view: HistoryView, ref: ChangesetRef): Promise<ChangesetTable | undefined> {
  if (view.history_id === null) return undefined;
  if ('index' in ref) {
    if (ref.index < 1 || ref.index > view.head_index) return undefined;
    return byIndex.first(db, { historyId: view.history_id, index: ref.index });
  }
  return byId.first(db, { historyId: view.history_id, headIndex: view.head_index, id: ref.id });
}

const byIndex = compiledQuery((db, { historyId, index }: { historyId: string; index: number }) =>
  db
    .selectFrom('changeset')
    .selectAll()
    .where('segment_id', '=', segmentOf(db, historyId, index))
    .where('index', '=', index),
);

const byId = compiledQuery((db, { historyId, headIndex, id }: { historyId: string; headIndex: number; id: string }) =>
  db
    .selectFrom('changeset as c')
    .innerJoin('history_segment as h', 'h.segment_id', 'c.segment_id')
    .selectAll('c')
    .where('c.id', '=', id)
    .where('h.history_id', '=', historyId)
    .whereRef('c.index', '>=', 'h.first_index')
    .whereRef('c.index', '<=', 'h.last_index')
    .where('c.index', '<=', headIndex),
);
