import { sql } from 'kysely';
import type { ChangesetRef } from '../../domain.ts';
import { compiledQuery } from '../compiledQuery.ts';
import type { Db } from '../database.ts';
import type { ChangesetTable } from '../schema.ts';
import { segmentOf } from './historyRanges.ts';
import type { HistoryView } from './segmentAt.ts';

/**
 * A changeset that an iModel sees, by index or id; undefined if there is none.
 *
 * By index: the walk to its segment, then the primary key of the changeset. By id: the index `(id, segment_id)` first, for the
 * indexes at which any iModel has a changeset with this id (nearly always one); then the changeset at each of them.
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
    .where('segment_id', '=', segmentOf(historyId, index))
    .where('index', '=', index),
);

const byId = compiledQuery((db, { historyId, headIndex, id }: { historyId: string; headIndex: number; id: string }) =>
  db
    .selectFrom((eb) =>
      eb
        .selectFrom('changeset')
        .select('index')
        .distinct()
        .where('id', '=', id)
        .where('index', '<=', headIndex)
        .as('candidate'),
    )
    .crossJoin('changeset as c')
    .selectAll('c')
    .whereRef('c.index', '=', 'candidate.index')
    .where('c.segment_id', '=', segmentOf(historyId, sql.ref<number>('candidate.index')))
    .where('c.id', '=', id),
);
