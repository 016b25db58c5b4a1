import type { Database } from '../db/database.ts';
import type { Schema } from '../db/schema.ts';

/** Resources whose unique name a repeated request would find taken. */
export type MadeTable = 'imodel' | 'itwin' | 'named_version' | 'repository';

/** Columns that the server itself changes while an iModel is being created. */
const ownOfServer = new Set(['state', 'baseline_id']);

/**
 * A thing as it is now, in words that change when anybody touches it. @param uploadBlobIds what was to be uploaded for it
 * @returns undefined when it is gone
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
  // Whatever is pushed, named or acquired moves the clock of an iModel, which is among its columns; an iTwin is used by what is in it.
  const inside =
    table === 'itwin' ? await db.selectFrom('imodel').select('id').where('itwin_id', '=', id).limit(1).execute() : [];
  return JSON.stringify([own, blobs, inside.length]);
}
