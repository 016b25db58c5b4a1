import { sql } from 'kysely';
import type { Database } from '../db/database.ts';
import { timeOf, type CollectorOptions } from './step.ts';

/** Rule of the API: a changeset group that is not completed in time gets the state `timedOut`. @returns how many did */
export async function timeOutChangesetGroups({ db }: Database, options: CollectorOptions): Promise<number> {
  const timedOut = await db
    .updateTable('changeset_group')
    .set({ state: 'timedOut' })
    .where('state', '=', sql.lit('inProgress'))
    .where((eb) => eb(eb.fn.coalesce('touched_at', 'created_at'), '<', timeOf(options) - options.groupLifeMs))
    .executeTakeFirst();
  return Number(timedOut.numUpdatedRows);
}
