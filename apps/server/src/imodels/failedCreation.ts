import type { Tx } from '../db/database.ts';
import type { OperationState } from '../domain.ts';

/** The outcome of a failed creation. */
export interface CreationFailure {
  state: Extract<OperationState, 'failed' | 'mainIModelIsMissingFederationGuids'>;
  /** Reason, written for users. */
  reason: string;
  /** The empty seed baseline, which replaces the source's baseline in a derived iModel. */
  seedId?: string | undefined;
}

/**
 * Marks the creation of an iModel as failed, unless it has already ended. The iModel is kept until it is deleted, so that its
 * create operation shows the reason. Its name can be reused, and a derived iModel no longer refers to its source.
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
