import type { Db } from '../database.ts';
import type { Sight } from './findChangeset.ts';

/** The segment that holds the changeset of an index in what an iModel sees; undefined past its head. One row, at any depth of history. */
export async function segmentAt(db: Db, sight: Sight, index: number): Promise<string | undefined> {
  if (sight.history_id === null || index < 1 || index > sight.head_index) return undefined;
  const range = await db
    .selectFrom('history_segment')
    .select('segment_id')
    .where('history_id', '=', sight.history_id)
    .where('first_index', '<=', index)
    .orderBy('first_index', 'desc')
    .limit(1)
    .executeTakeFirst();
  return range?.segment_id;
}
