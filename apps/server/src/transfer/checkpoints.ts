import { deleteModelFile } from '../checkpoints/modelFiles.ts';
import type { Tx } from '../db/database.ts';
import type { CheckpointTable, TransferTable } from '../db/schema.ts';
import type { Effect, JobHandler, RunningJob } from '../operations/jobs.ts';
import { transferCheckpointsJob } from './begin.ts';
import { copyAllCheckpoints } from './checkpointCopy.ts';
import { ignoringEnd, endTransfer, retryLater, transferLimits } from './files.ts';
import type { TransferParts } from './transferParts.ts';
import { TransferRun } from './run.ts';

/**
 * Handles the second job of a transfer: it copies the checkpoints that the first job did not, block by block; the store may
 * have many of the blocks already. The iModel is usable meanwhile. If the attempts are exhausted, the operation is successful
 * all the same, and missing checkpoints are made again if the installation makes checkpoints.
 */
export function transferCheckpointsHandler(parts: TransferParts): JobHandler {
  return {
    kind: transferCheckpointsJob,
    ...transferLimits(parts.config),
    run: (job) => ignoringEnd(() => copyCheckpoints(parts, job)),
    onExhausted: (tx, { subjectId }) => finish(tx, parts, subjectId),
  };
}

async function copyCheckpoints(parts: TransferParts, job: RunningJob): Promise<Effect> {
  const run = await TransferRun.begin(parts.database, job, parts.config.attemptsWithoutProgress);
  if (run === undefined) return async () => undefined;
  try {
    if ((await copyAllCheckpoints(parts, run)) === 'waiting')
      return (tx) => retryLater(tx, transferCheckpointsJob, job);
    return (tx) => finish(tx, parts, run.transfer.imodel_id);
  } catch (error) {
    if (run.signal.aborted) throw run.signal.reason;
    throw error;
  } finally {
    run.end();
  }
}

/** Ends a transfer, whether or not all checkpoints were copied. */
async function finish(tx: Tx, parts: TransferParts, imodelId: string): Promise<void> {
  const transfer = await tx.selectFrom('transfer').selectAll().where('imodel_id', '=', imodelId).executeTakeFirst();
  const imodel = await tx
    .selectFrom('imodel')
    .selectAll()
    .where('id', '=', imodelId)
    .where('deleted_at', 'is', null)
    .executeTakeFirst();
  // If the iModel was deleted meanwhile, the collector deletes the rows of the transfer.
  if (transfer === undefined || imodel === undefined) return;
  const unfinished = await deleteUnfinished(tx, transfer);
  await endTransfer(tx, parts, transfer);
  await tx
    .updateTable('operation')
    .set((eb) => ({ state: 'successful', finished_at: Date.now(), bytes_done: eb.ref('bytes'), bytes_under_way: 0 }))
    .where('imodel_id', '=', imodelId)
    .execute();
  for (const checkpoint of unfinished) {
    // A checkpoint that was scheduled must not become unknown: it is made again, or else it is failed with a reason.
    if (await parts.checkpoints.ensureScheduled(tx, imodel, checkpoint.changeset_index)) continue;
    const failureReason = 'The checkpoint could not be copied into this data center.';
    await parts.checkpoints.graphics.checkpointFailed(tx, checkpoint, failureReason);
    await tx
      .insertInto('checkpoint')
      .values({
        ...checkpoint,
        state: 'failed',
        file_id: null,
        failure_reason: failureReason,
        finished_at: Date.now(),
      })
      .onConflict((conflict) => conflict.doNothing())
      .execute();
  }
  await parts.checkpoints.ensureScheduled(tx, imodel, 0);
  await parts.checkpoints.scheduleTip(tx, imodel);
}

/** Deletes the checkpoints whose files were not copied completely. @returns their rows as they were */
async function deleteUnfinished(tx: Tx, transfer: TransferTable): Promise<CheckpointTable[]> {
  // Transfers of one baseline share its checkpoint; another one that still runs will complete it.
  const other = await tx
    .selectFrom('transfer')
    .select('imodel_id')
    .where('baseline_id', '=', transfer.baseline_id)
    .where('imodel_id', '!=', transfer.imodel_id)
    .limit(1)
    .executeTakeFirst();
  const unfinished = await tx
    .deleteFrom('checkpoint')
    .where('state', '=', 'scheduled')
    .where('file_id', 'is not', null)
    .where((eb) =>
      eb.or([
        eb('segment_id', '=', transfer.segment_id),
        ...(other === undefined ? [eb('baseline_id', '=', transfer.baseline_id)] : []),
      ]),
    )
    .returningAll()
    .execute();
  for (const { file_id } of unfinished) if (file_id !== null) await deleteModelFile(tx, file_id);
  return unfinished;
}
