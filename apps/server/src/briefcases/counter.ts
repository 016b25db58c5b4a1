import type { Tx } from '../db/database.ts';

/** Rule of iTwin.js: lower ids are reserved (0 is unassigned, 1 is a standalone file). */
export const firstBriefcaseId = 2;
/** Rule of iTwin.js (`BriefcaseIdValue.LastValid`): it has 24 bits in an element id, and the highest values are reserved. */
export const lastBriefcaseId = 2 ** 24 - 11;

/**
 * Raises the briefcase counter of an iModel to `atLeast`. A higher counter is not changed.
 *
 * iTwin.js builds element ids as `briefcaseId << 40 | n`, so a briefcase id that was used for any contents of the iModel must
 * never be issued again: both briefcases would create elements with the same ids.
 * @param atLeast one more than the highest briefcase id in use
 */
export async function raiseBriefcaseCounter(tx: Tx, imodelId: string, atLeast: number): Promise<void> {
  const next = Math.min(atLeast, lastBriefcaseId + 1);
  await tx
    .updateTable('imodel')
    .set({ next_briefcase_id: next })
    .where('id', '=', imodelId)
    .where('next_briefcase_id', '<', next)
    .execute();
}

/** Raises the counters of all iModels with a baseline that contains elements of these briefcases. */
export async function raiseBriefcaseCountersOn(tx: Tx, baselineId: string, atLeast: number): Promise<void> {
  const next = Math.min(atLeast, lastBriefcaseId + 1);
  await tx
    .updateTable('imodel')
    .set({ next_briefcase_id: next })
    .where('baseline_id', '=', baselineId)
    .where('next_briefcase_id', '<', next)
    .execute();
}
