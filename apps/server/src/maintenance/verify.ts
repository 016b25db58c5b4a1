import { createHash } from 'node:crypto';
import type { Db } from '../db/database.ts';
import type { Schema } from '../db/schema.ts';
import { countOrphans } from '../collector/orphans.ts';
import type { BlobStore } from '../storage/blobStore.ts';
import type { Stores } from '../storage/stores.ts';

/** A file that the database knows and the store has not as it should. */
export interface Fault {
  blobId: string;
  /** Id of the store that should have it. */
  store: string;
  key: string;
  /** `missing` = nothing there; `size`, `content` = other bytes. */
  what: 'missing' | 'size' | 'content';
}

/** What a check of an installation found. */
export interface Verified {
  /** Files that the database knows. */
  files: number;
  bytes: number;
  faults: Fault[];
  /** Objects that no row knows: left by a crash or a restored backup. The collector takes them after 7 days. */
  orphanObjects: string[];
  /** By table, rows that nothing refers to. The thorough run of the collector, once a day, takes them. */
  orphans: Partial<Record<keyof Schema, number>>;
}

const pageSize = 1000;
/** An object that is younger may belong to an upload whose row is still to come. */
const uploadMs = 3_600_000;

/**
 * Compares what the database knows with what the stores have, without changing anything; a server may run meanwhile.
 * @param deep also reads every file and compares its hash
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

/** Adds what one store has to what was found. */
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
      // Stored after the list was taken, or collected since.
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
