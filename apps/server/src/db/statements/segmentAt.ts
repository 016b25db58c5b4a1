import { compiledQuery } from '../compiledQuery.ts';
import type { Db } from '../database.ts';
import { segmentOf } from './historyRanges.ts';

/** The columns of an iModel that determine which changesets it sees. */
export interface HistoryView {
  history_id: string | null;
  head_index: number;
}

/** The segment that contains the changeset with an index in a history view; undefined beyond its head. */
export async function segmentAt(db: Db, view: HistoryView, index: number): Promise<string | undefined> {
  if (view.history_id === null || index < 1 || index > view.head_index) return undefined;
  return (await segmentAtIndex.first(db, { historyId: view.history_id, index }))?.id;
}

const segmentAtIndex = compiledQuery((db, { historyId, index }: { historyId: string; index: number }) =>
  db.selectFrom('segment').select('id').where('id', '=', segmentOf(historyId, index)),
);
