import { randomUUID } from 'node:crypto';
import { sql } from 'kysely';
import type { Tx } from '../database.ts';
import { compiledQuery } from '../compiledQuery.ts';
import { defer } from '../deferred.ts';
import { openEnd, type ChangesetTable, type IModelTable } from '../schema.ts';

/**
 * Adds a changeset after the head of an iModel that is locked for a push.
 *
 * The iModel appends to the last segment of its history if that segment is its own. Otherwise (first push, or first push
 * after a clone) it opens a segment and moves to a new history: its old ranges, cut at its head, and the new segment. This
 * copies one row per range of the history, once per iModel, so that a clone copies none.
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
  await defer(
    tx,
    tx
      .insertInto('changeset')
      .values({ ...changeset, segment_id: segmentId, index })
      .execute(),
  );
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

/** The segment that the iModel may append to: the open end of its history, when that is its own. */
async function ownTail(tx: Tx, imodel: IModelTable): Promise<{ historyId: string; segmentId: string } | undefined> {
  if (imodel.history_id === null) return undefined;
  const row = await tailOwned.first(tx, { historyId: imodel.history_id, imodelId: imodel.id });
  return row === undefined ? undefined : { historyId: imodel.history_id, segmentId: row.id };
}

const tailOwned = compiledQuery((db, { historyId, imodelId }: { historyId: string; imodelId: string }) =>
  db
    .selectFrom('history_segment as h')
    .innerJoin('segment as s', 's.id', 'h.segment_id')
    .select('s.id')
    .where('h.history_id', '=', historyId)
    .where('h.last_index', '=', sql.lit(openEnd))
    .where('s.owner_imodel_id', '=', imodelId),
);

async function openSegment(
  tx: Tx,
  imodel: IModelTable,
  firstIndex: number,
  now: number,
): Promise<{ historyId: string; segmentId: string }> {
  const historyId = randomUUID();
  const segmentId = randomUUID();
  await defer(tx, tx.insertInto('segment').values({ id: segmentId, owner_imodel_id: imodel.id }).execute());
  await defer(tx, tx.insertInto('history').values({ id: historyId, created_at: now }).execute());
  if (imodel.history_id !== null) {
    const head = imodel.head_index;
    const inherited = tx
      .insertInto('history_segment')
      .columns(['history_id', 'first_index', 'last_index', 'segment_id'])
      .expression((eb) =>
        eb
          .selectFrom('history_segment as h')
          .select((inner) => [
            inner.val(historyId).as('history_id'),
            'h.first_index',
            inner
              .case()
              .when('h.last_index', '>', head)
              .then(inner.cast<number>(inner.val(head), 'bigint'))
              .else(inner.ref('h.last_index'))
              .end()
              .as('last_index'),
            'h.segment_id',
          ])
          .where('h.history_id', '=', imodel.history_id)
          .where('h.first_index', '<=', head),
      )
      .execute();
    await defer(tx, inherited);
  }
  const open = tx
    .insertInto('history_segment')
    .values({ history_id: historyId, first_index: firstIndex, last_index: openEnd, segment_id: segmentId })
    .execute();
  await defer(tx, open);
  return { historyId, segmentId };
}
