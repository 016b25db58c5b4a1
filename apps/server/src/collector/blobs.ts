import type { Database } from '../db/database.ts';
import { PastFailures } from '../operations/pastFailures.ts';
import type { BlobStore } from '../storage/blobStore.ts';
import { releaseBlobs } from '../storage/blobs.ts';
import { orphanIds } from './orphans.ts';
import { chunk, timeOf, unlessInUse, type CollectorOptions } from './step.ts';

/**
 * Least age of an object without a row before it is deleted. After a database was restored from a backup, such objects may
 * hold the only copy of something.
 */
const orphanAgeMs = 7 * 24 * 3600 * 1000;

/** Blobs that one transaction releases. */
const releasedAtOnce = 200;

/** Releases blobs that nothing refers to and that were never released. @returns how many */
export async function releaseOrphanBlobs(database: Database, options: CollectorOptions): Promise<number> {
  const { uploadLifeMs, signal } = options;
  let released = 0;
  for (;;) {
    signal?.throwIfAborted();
    const ids = await orphanIds(database, 'blob', timeOf(options) - uploadLifeMs, releasedAtOnce);
    await database.db.transaction().execute((tx) => releaseBlobs(tx, ids, Date.now()));
    released += ids.length;
    if (ids.length < releasedAtOnce) return released;
  }
}

/** Deletes the released blobs of one store, and their bytes, after the grace period. @returns how many */
export async function deleteReleasedBlobs(
  { db }: Database,
  store: BlobStore,
  options: CollectorOptions,
): Promise<number> {
  const { graceMs, signal } = options;
  let deleted = 0;
  const failures = new PastFailures(signal);
  for (;;) {
    const released = await db
      .selectFrom('blob')
      .select(['id', 'key'])
      .where('released_at', 'is not', null)
      .where('released_at', '<=', timeOf(options) - graceMs)
      .where('store', '=', store.id)
      .limit(chunk)
      .execute();
    for (const { id, key } of released) {
      signal?.throwIfAborted();
      // The row is deleted first: a crash in between, or an object that cannot be deleted, leaves an orphaned object and
      // never a row without its bytes.
      const count = await unlessInUse(async () =>
        Number((await db.deleteFrom('blob').where('id', '=', id).executeTakeFirst()).numDeletedRows),
      );
      if (count === 0) await db.updateTable('blob').set({ released_at: null }).where('id', '=', id).execute();
      else if (key !== null) await failures.pass(() => store.delete(key, { signal }));
    }
    deleted += released.length;
    if (released.length < chunk) break;
  }
  failures.end();
  return deleted;
}

/** Deletes the objects of one store that no blob refers to. @returns how many */
export async function deleteOrphanObjects(
  { db }: Database,
  store: BlobStore,
  options: CollectorOptions,
): Promise<number> {
  const { signal } = options;
  const before = timeOf(options) - orphanAgeMs;
  let deleted = 0;
  const failures = new PastFailures(signal);
  let batch: string[] = [];
  const check = async (): Promise<void> => {
    if (batch.length === 0) return;
    const known = new Set(
      (await db.selectFrom('blob').select('key').where('key', 'in', batch).execute()).map(({ key }) => key),
    );
    for (const key of batch.filter((candidate) => !known.has(candidate)))
      await failures.pass(async () => {
        await store.delete(key, { signal });
        deleted++;
      });
    batch = [];
  };
  for await (const { key, modifiedAt } of store.list({ signal })) {
    if (modifiedAt >= before) continue;
    batch.push(key);
    if (batch.length >= chunk) await check();
  }
  await check();
  failures.end();
  return deleted;
}
