import { createHash } from 'node:crypto';
import type { Db } from '../db/database.ts';
import type { Schema } from '../db/schema.ts';
import { countOrphans } from '../collector/orphans.ts';
import type { BlobStore } from '../storage/blobStore.ts';
import type { Stores } from '../storage/stores.ts';

/** A file that is missing from its store or differs from the database. */
export interface Fault {
  blobId: string;
  /** Id of the store. */
  store: string;
  key: string;
  /** `missing`: the object does not exist. `size`, `content`: it has another size or hash. */
  what: 'missing' | 'size' | 'content';
}

/** The result of verifying an installation. */
export interface Verified {
  /** Number of files that the database refers to. */
  files: number;
  bytes: number;
  faults: Fault[];
  /** Objects that no row refers to, left by a crash or a restored backup. The collector deletes them after 7 days. */
  orphanObjects: string[];
  /** Number of rows that nothing refers to, by table. The daily thorough run of the collector deletes them. */
  orphans: Partial<Record<keyof Schema, number>>;
}

const pageSize = 1000;
/** A newer object may belong to a running upload whose row is not inserted yet. */
const uploadMs = 3_600_000;

/**
 * Compares the database with the stores, without changing either. A server may be running.
 * @param deep whether to read every file and compare its hash
 */
export async function verify(
  db: Db,
  stores: Stores,
  deep: boolean,
  onFile: (checked: number) => void = () => undefined,
): Promise<Verified> {
  const found: Verified = {
    files: 0,
    bytes: 0,
    faults: [],
    orphanObjects: [],
    orphans: await countOrphans(db, Date.now() - uploadMs),
  };
  for (const store of stores.all) await verifyStore(db, store, deep, found, onFile);
  return found;
}

/** Verifies one store and adds its results to `found`. */
async function verifyStore(
  db: Db,
  store: BlobStore,
  deep: boolean,
  found: Verified,
  onFile: (checked: number) => void,
): Promise<void> {
  const began = Date.now();
  const objects = new Map<string, { size: number; modifiedAt: number }>();
  for await (const { key, size, modifiedAt } of store.list()) objects.set(key, { size, modifiedAt });
  for (let after = ''; ;) {
    const rows = await db
      .selectFrom('blob')
      .select(['id', 'key', 'size', 'sha256', 'created_at'])
      .where('state', '=', 'stored')
      .where('store', '=', store.id)
      .where('id', '>', after)
      .orderBy('id')
      .limit(pageSize)
      .execute();
    for (const { id, key, size, sha256, created_at } of rows) {
      if (key === null) continue;
      const object = objects.get(key);
      objects.delete(key);
      // The file was stored after the listing, or has been collected since.
      if (object === undefined && (created_at > began || !(await isKnown(db, id)))) continue;
      found.files++;
      found.bytes += size;
      const what =
        object === undefined
          ? 'missing'
          : object.size !== size
            ? 'size'
            : deep && (await hashOf(store, key)) !== sha256
              ? 'content'
              : undefined;
      if (what !== undefined) found.faults.push({ blobId: id, store: store.id, key, what });
      onFile(found.files);
    }
    const last = rows.at(-1);
    if (last === undefined) break;
    after = last.id;
  }
  found.orphanObjects.push(
    ...[...objects].filter(([, { modifiedAt }]) => modifiedAt < began - uploadMs).map(([key]) => key),
  );
}

async function isKnown(db: Db, id: string): Promise<boolean> {
  return (await db.selectFrom('blob').select('id').where('id', '=', id).executeTakeFirst()) !== undefined;
}

async function hashOf(store: BlobStore, key: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of await store.read(key)) hash.update(chunk as Buffer);
  return hash.digest('hex');
}
