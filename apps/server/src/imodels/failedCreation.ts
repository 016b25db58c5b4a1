import type { Tx } from '../db/database.ts';
import type { OperationState } from '../domain.ts';

/** How a creation ended that did not make an iModel. */
export interface CreationFailure {
  state: Extract<OperationState, 'failed' | 'mainIModelIsMissingFederationGuids'>;
  /** For users. */
  reason: string;
  /** A baseline that holds nothing of anybody, for an iModel that referred to its source's until now. */
  seedId?: string | undefined;
}

/**
 * Ends the creation of an iModel as failed, unless it has ended. The iModel stays: its id leads to the reason until it is
 * deleted. Its name is free from now on, and a derived iModel lets go of all that it was to be made from.
 */
export async function failCreation(
  tx: Tx,
  iModelId: string,
  { state, reason, seedId }: CreationFailure,
): Promise<void> {
  const now = Date.now();
  const failed = await tx
    .updateTable('imodel')
    .set({
      failed_at: now,
      history_id: null,
      head_index: 0,
      head_changeset_id: '',
      last_pushed_at: null,
      ...(seedId !== undefined && { baseline_id: seedId }),
    })
    .where('id', '=', iModelId)
    .where('state', '=', 'notInitialized')
    .where('failed_at', 'is', null)
    .executeTakeFirst();
  if (failed.numUpdatedRows === 0n) return;
  await tx
    .updateTable('operation')
    .set({ state, failure_reason: reason, finished_at: now })
    .where('imodel_id', '=', iModelId)
    .execute();
}
