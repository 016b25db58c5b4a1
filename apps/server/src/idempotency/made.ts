import type { Database } from '../db/database.ts';
import type { Schema } from '../db/schema.ts';

/** Resources whose unique name a repeated request would find taken. */
export type MadeTable = 'imodel' | 'itwin' | 'named_version' | 'repository';

/** Columns that the server itself changes while an iModel is being created. */
const ownOfServer = new Set(['state', 'baseline_id']);

/**
 * A description of a resource that changes whenever the resource does. @param uploadBlobIds blobs whose upload it is waiting for
 * @returns undefined if the resource no longer exists
 */
export async function stateOfMade(
  { db }: Database,
  table: MadeTable,
  id: string,
  uploadBlobIds: readonly string[],
): Promise<string | undefined> {
  const row = (await db
    .selectFrom(table as 'imodel')
    .selectAll()
    .where('id', '=', id)
    .executeTakeFirst()) as Schema['imodel'] | undefined;
  if (row === undefined || row.deleted_at != null) return undefined;
  const own = Object.entries(row).filter(([column]) => table !== 'imodel' || !ownOfServer.has(column));
  const blobs =
    uploadBlobIds.length === 0
      ? []
      : await db.selectFrom('blob').select(['id', 'state']).where('id', 'in', uploadBlobIds).orderBy('id').execute();
  // Pushes, named versions and briefcases advance the clock column of an iModel. An iTwin is in use if it contains anything.
  const inside =
    table === 'itwin' ? await db.selectFrom('imodel').select('id').where('itwin_id', '=', id).limit(1).execute() : [];
  return JSON.stringify([own, blobs, inside.length]);
}
