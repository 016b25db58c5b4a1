import { deleteModelFile } from '../checkpoints/modelFiles.ts';
import type { Tx } from '../db/database.ts';
import type { CheckpointTable, TransferTable } from '../db/schema.ts';
import type { Effect, JobHandler, RunningJob } from '../operations/jobs.ts';
import { transferCheckpointsJob } from './begin.ts';
import { copyAllCheckpoints } from './checkpointCopy.ts';
import { ending, endTransfer, lookAgain, transferLimits } from './files.ts';
import type { TransferParts } from './transferParts.ts';
import { TransferRun } from './run.ts';

/**
 * Handles the second job of a transfer: the checkpoints of what came over, block by block, of which the store may have many
 * already; one is there from the first job. The iModel is in use meanwhile. When all attempts are spent, that costs speed and
 * nothing else: the operation is successful then too, and what is missing is made anew where checkpoints are made.
 */
export function transferCheckpointsHandler(parts: TransferParts): JobHandler {
  return {
    kind: transferCheckpointsJob,
    ...transferLimits(parts.config),
    run: (job) => ending(() => copyCheckpoints(parts, job)),
    onExhausted: (tx, { subjectId }) => finish(tx, parts, subjectId),
  };
}

async function copyCheckpoints(parts: TransferParts, job: RunningJob): Promise<Effect> {
  const run = await TransferRun.begin(parts.database, job, parts.config.attemptsWithoutProgress);
  if (run === undefined) return async () => undefined;
  try {
    if ((await copyAllCheckpoints(parts, run)) === 'waiting') return (tx) => lookAgain(tx, transferCheckpointsJob, job);
    return (tx) => finish(tx, parts, run.transfer.imodel_id);
  } catch (error) {
    if (run.signal.aborted) throw run.signal.reason;
    throw error;
  } finally {
    run.end();
  }
}

/** The end of a transfer, whether or not all checkpoints came over. */
async function finish(tx: Tx, parts: TransferParts, imodelId: string): Promise<void> {
  const transfer = await tx.selectFrom('transfer').selectAll().where('imodel_id', '=', imodelId).executeTakeFirst();
  const imodel = await tx
    .selectFrom('imodel')
    .selectAll()
    .where('id', '=', imodelId)
    .where('deleted_at', 'is', null)
    .executeTakeFirst();
  // Deleted meanwhile: the collector takes the rest.
  if (transfer === undefined || imodel === undefined) return;
  const unfinished = await takeBackUnfinished(tx, transfer);
  await endTransfer(tx, parts, transfer);
  await tx
    .updateTable('operation')
    .set((eb) => ({ state: 'successful', finished_at: Date.now(), bytes_done: eb.ref('bytes'), bytes_under_way: 0 }))
    .where('imodel_id', '=', imodelId)
    .execute();
  for (const checkpoint of unfinished) {
    // Made here where checkpoints are made: whoever was told that it is on its way is not told now that there is none.
    if (await parts.checkpoints.ensureScheduled(tx, imodel, checkpoint.changeset_index)) continue;
    await tx
      .insertInto('checkpoint')
      .values({
        ...checkpoint,
        state: 'failed',
        file_id: null,
        failure_reason: 'The checkpoint could not be copied into this data center.',
        finished_at: Date.now(),
      })
      .onConflict((conflict) => conflict.doNothing())
      .execute();
  }
  await parts.checkpoints.ensureScheduled(tx, imodel, 0);
  await parts.checkpoints.scheduleTip(tx, imodel);
}

/** Takes away the checkpoints whose files did not come over whole. @returns their rows as they were */
async function takeBackUnfinished(tx: Tx, transfer: TransferTable): Promise<CheckpointTable[]> {
  // Copies of one baseline share its checkpoint: one that is still on its way fills it.
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
