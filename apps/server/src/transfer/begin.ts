import { randomUUID } from 'node:crypto';
import type { Tx } from '../db/database.ts';
import type { IModelTable } from '../db/schema.ts';
import type { Caller } from '../domain.ts';
import { enqueue } from '../operations/jobs.ts';
import type { BlobStore } from '../storage/blobStore.ts';

/** Job that copies baseline, changesets and the first checkpoint; the iModel is initialized at its end. */
export const transferFilesJob = 'transferFiles';
/** Job that copies the other checkpoints; the create operation is successful at its end. */
export const transferCheckpointsJob = 'transferCheckpoints';

/** The payload of the first job: whose permissions it needs, and which iModel it copies from. */
export interface TransferOrder {
  caller: Caller;
  fromIModelId: string;
}

/**
 * Schedules the transfer of an iModel into the store of its data center, in the transaction that inserts the iModel or that
 * completes its derive job. The iModel stays `notInitialized` until its files are in that store.
 * @param imodel as it was inserted: its baseline and its history view are the source's
 */
export async function beginTransfer(
  tx: Tx,
  imodel: Pick<IModelTable, 'id' | 'itwin_id' | 'baseline_id' | 'history_id' | 'head_index'>,
  store: BlobStore,
  order: TransferOrder,
): Promise<void> {
  // The new iModel owns the segment from the start, so that the collector keeps it and later pushes can append to it.
  const segmentId = imodel.head_index === 0 ? null : randomUUID();
  if (segmentId !== null)
    await tx.insertInto('segment').values({ id: segmentId, owner_imodel_id: imodel.id }).execute();
  await tx
    .insertInto('transfer')
    .values({
      imodel_id: imodel.id,
      store: store.id,
      from_baseline_id: imodel.baseline_id,
      history_id: imodel.history_id,
      head_index: imodel.head_index,
      baseline_id: null,
      segment_id: segmentId,
      attempt: 0,
      fruitful_attempt: 0,
      begun_at: null,
    })
    .execute();
  await enqueue(tx, {
    kind: transferFilesJob,
    subjectId: imodel.id,
    tenant: imodel.itwin_id,
    userId: order.caller.user.id,
    payload: order,
  });
}
