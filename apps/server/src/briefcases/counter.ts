import type { Tx } from '../db/database.ts';

/** Rule of iTwin.js: the ids below are reserved (0 nobody's, 1 a standalone file's). */
export const firstBriefcaseId = 2;
/** Rule of iTwin.js (`BriefcaseIdValue.LastValid`): 24 bits of an element id hold it, and the last ones are reserved. */
export const lastBriefcaseId = 2 ** 24 - 11;

/**
 * Makes an iModel hand out no briefcase id below `atLeast` from now on; a counter that is higher stays.
 *
 * iTwin.js builds element ids as `briefcaseId << 40 | n`, so a briefcase id that anybody used for what the iModel holds must
 * never be given to somebody else: both would make elements with the same ids.
 * @param atLeast one more than the highest briefcase id that is taken
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

/** The same for all iModels that have a baseline in which these briefcases made elements. */
export async function raiseBriefcaseCountersOn(tx: Tx, baselineId: string, atLeast: number): Promise<void> {
  const next = Math.min(atLeast, lastBriefcaseId + 1);
  await tx
    .updateTable('imodel')
    .set({ next_briefcase_id: next })
    .where('baseline_id', '=', baselineId)
    .where('next_briefcase_id', '<', next)
    .execute();
}
