import { sql } from 'kysely';
import type { Db } from '../database.ts';

/** The columns of an iModel that determine which changesets it sees. */
export interface HistoryView {
  history_id: string | null;
  head_index: number;
}

/** Statement that finds the segment of an index in a history: one row, at any depth. */
export function segmentOf(db: Db, historyId: string, index: number) {
  return db
    .selectFrom('history_segment')
    .select('segment_id')
    .where('history_id', '=', historyId)
    .where('first_index', '<=', index)
    .orderBy('first_index', 'desc')
    .limit(sql.lit(1));
}

/** The segment that contains the changeset with an index in a history view; undefined beyond its head. */
export async function segmentAt(db: Db, view: HistoryView, index: number): Promise<string | undefined> {
  if (view.history_id === null || index < 1 || index > view.head_index) return undefined;
  return (await segmentOf(db, view.history_id, index).executeTakeFirst())?.segment_id;
}
