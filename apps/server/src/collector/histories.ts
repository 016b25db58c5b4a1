import type { Database } from '../db/database.ts';
import { orphanIds } from './orphans.ts';
import { chunk, unlessInUse, type CollectorOptions } from './step.ts';

/** Deletes the histories or the segments that nothing refers to. @returns how many */
export async function deleteUnreferenced(
  { db }: Database,
  table: 'history' | 'segment',
  { signal }: CollectorOptions,
): Promise<number> {
  let deleted = 0;
  for (;;) {
    signal?.throwIfAborted();
    const ids = await orphanIds(db, table, Date.now() + 1, chunk);
    if (ids.length === 0) return deleted;
    // A concurrent insert that refers to one of them locks it, so either the insert or this deletion fails by the foreign key.
    const count = await unlessInUse(async () =>
      Number((await db.deleteFrom(table).where('id', 'in', ids).executeTakeFirst()).numDeletedRows),
    );
    deleted += count;
    if (count < ids.length || ids.length < chunk) return deleted;
  }
}
