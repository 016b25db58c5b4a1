import { randomUUID } from 'node:crypto';
import type { Tx } from '../database.ts';
import { compiledQuery } from '../compiledQuery.ts';
import { defer } from '../deferred.ts';
import type { ChangesetTable, IModelTable } from '../schema.ts';
import { insertHistory } from './insertHistory.ts';

/**
 * Adds a changeset after the head of an iModel that is locked for a push.
 *
 * The iModel appends to the segment of its history if that segment is its own. Otherwise (first push, or first push after a
 * clone) it opens a segment and moves to a new history below the one that contains its head. This adds two rows at any depth.
 * @returns the changed columns of the iModel's history view
 */
export async function appendChangeset(
  tx: Tx,
  imodel: IModelTable,
  changeset: Omit<ChangesetTable, 'segment_id' | 'index'>,
  now: number,
): Promise<Pick<IModelTable, 'history_id' | 'head_index'>> {
  const index = imodel.head_index + 1;
  const tail = await ownTail(tx, imodel);
  const { historyId, segmentId } = tail ?? (await openSegment(tx, imodel, index, now));
  await defer(tx, insertChangeset.run(tx, { ...changeset, segment_id: segmentId, index }));
  await defer(
    tx,
    moveHead.run(tx, {
      id: imodel.id,
      historyId,
      index,
      changesetId: changeset.id,
      pushedAt: changeset.pushed_at,
    }),
  );
  return { history_id: historyId, head_index: index };
}

const insertChangeset = compiledQuery((db, row: ChangesetTable) =>
  db.insertInto('changeset').values({
    segment_id: row.segment_id,
    index: row.index,
    id: row.id,
    parent_id: row.parent_id,
    blob_id: row.blob_id,
    file_size: row.file_size,
    description: row.description,
    containing_changes: row.containing_changes,
    briefcase_id: row.briefcase_id,
    creator_id: row.creator_id,
    pushed_at: row.pushed_at,
    application_id: row.application_id,
    application_name: row.application_name,
    synchronization_info: row.synchronization_info,
  }),
);

const moveHead = compiledQuery(
  (db, head: { id: string; historyId: string; index: number; changesetId: string; pushedAt: number }) =>
    db
      .updateTable('imodel')
      .set({
        history_id: head.historyId,
        head_index: head.index,
        head_changeset_id: head.changesetId,
        last_pushed_at: head.pushedAt,
        clock: head.pushedAt,
      })
      .where('id', '=', head.id),
);

/** The segment that the iModel may append to: the own segment of its history, when that is its own. */
async function ownTail(tx: Tx, imodel: IModelTable): Promise<{ historyId: string; segmentId: string } | undefined> {
  if (imodel.history_id === null) return undefined;
  const row = await tailOwned.first(tx, { historyId: imodel.history_id, imodelId: imodel.id });
  return row === undefined ? undefined : { historyId: imodel.history_id, segmentId: row.id };
}

const tailOwned = compiledQuery((db, { historyId, imodelId }: { historyId: string; imodelId: string }) =>
  db
    .selectFrom('history as h')
    .innerJoin('segment as s', 's.id', 'h.segment_id')
    .select('s.id')
    .where('h.id', '=', historyId)
    .where('s.owner_imodel_id', '=', imodelId),
);

async function openSegment(
  tx: Tx,
  imodel: IModelTable,
  firstIndex: number,
  now: number,
): Promise<{ historyId: string; segmentId: string }> {
  const segmentId = randomUUID();
  await defer(tx, tx.insertInto('segment').values({ id: segmentId, owner_imodel_id: imodel.id }).execute());
  return { historyId: await insertHistory(tx, { segmentId, firstIndex, from: imodel, now }), segmentId };
}
