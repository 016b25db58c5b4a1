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

/** What is kept with the first of the two: whose permissions it runs on, and where it copies from. */
export interface TransferOrder {
  caller: Caller;
  fromIModelId: string;
}

/**
 * Orders the copy of an iModel into the store of its data center, in the transaction that accepts it or hands it on. The
 * iModel's row sees what is to be copied; it stays `notInitialized` until that is in its store.
 * @param imodel as it was inserted: its baseline and its sight are the source's
 */
export async function beginTransfer(
  tx: Tx,
  imodel: Pick<IModelTable, 'id' | 'itwin_id' | 'baseline_id' | 'history_id' | 'head_index'>,
  store: BlobStore,
  order: TransferOrder,
): Promise<void> {
  // Owned by the copy from the start, so that it is nobody's to collect, and that the copy may append to it afterwards.
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
