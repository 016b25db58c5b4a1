import { randomUUID } from 'node:crypto';
import type { Readable } from 'node:stream';
import type { Db, Tx } from '../db/database.ts';
import { NoSuchObjectError, SizeMismatchError, type BlobStore, type ByteRange, type CallOptions, type StoredObject } from './blobStore.ts';
import type { Stores } from './stores.ts';

/** Where the bytes of a blob lie. */
export interface BlobPlace {
  /** Id of the store. */
  store: string;
  key: string;
}

/** A blob that can be read. */
export interface ReadableBlob extends BlobPlace {
  id: string;
  size: number;
  sha256: string;
}

/** Where a blob lies, or is to lie. */
export interface Placed {
  store: string;
  /** Null while it is awaited. */
  key: string | null;
}

/** An upload that may still be made: the push or the baseline that it belongs to is waiting for it. */
export interface OpenUpload {
  id: string;
  /** Id of the store that it goes to. */
  store: string;
  size: number;
  /** Whether its bytes have come. */
  stored: boolean;
}

/** How long the address of a redirect is good. */
const redirectMs = 300_000;

/** What became of an upload. `conflict` = the blob already has other bytes. */
export type UploadOutcome = 'stored' | 'conflict';

/** Joins the stores with the database rows that make their objects known. Keys are chosen here and nowhere else. */
export class Blobs {
  readonly #db: Db;
  readonly stores: Stores;

  constructor(db: Db, stores: Stores) {
    this.#db = db;
    this.stores = stores;
  }

  /** Reads a stored blob, or a range of it. */
  async read({ store, key }: BlobPlace, range?: ByteRange, options?: CallOptions): Promise<Readable> {
    return this.stores.get(store).read(key, range, options);
  }

  /** Inserts the row of a blob that is to be uploaded; its bytes come through a link. */
  async expect(tx: Tx, store: BlobStore, size: number, now: number): Promise<string> {
    const id = randomUUID();
    await tx
      .insertInto('blob')
      .values({ id, store: store.id, key: null, size, sha256: null, state: 'pending', created_at: now, released_at: null })
      .execute();
    return id;
  }

  /** The blob, when its bytes are there. */
  async findReadable(id: string): Promise<ReadableBlob | undefined> {
    const row = await this.#db.selectFrom('blob').select(['id', 'store', 'key', 'size', 'sha256']).where('id', '=', id).where('state', '=', 'stored').executeTakeFirst();
    return row?.key == null || row.sha256 === null ? undefined : { id: row.id, store: row.store, key: row.key, size: row.size, sha256: row.sha256 };
  }

  /**
   * The upload behind a blob: `open` while a push or a baseline waits for it, `closed` once that is complete (a replayed
   * link changes nothing), undefined when there is no such blob or its push was given up.
   */
  async findUpload(id: string): Promise<OpenUpload | 'closed' | undefined> {
    const row = await this.#db
      .selectFrom('blob as b')
      .select((eb) => [
        'b.id',
        'b.store',
        'b.size',
        'b.state',
        eb
          .or([
            eb.exists(eb.selectFrom('pending_changeset as p').select('p.blob_id').whereRef('p.blob_id', '=', 'b.id')),
            eb.exists(
              eb.selectFrom('baseline as l').select('l.blob_id').whereRef('l.blob_id', '=', 'b.id').where('l.state', '=', 'waitingForFile'),
            ),
          ])
          .as('awaited'),
      ])
      .where('b.id', '=', id)
      .executeTakeFirst();
    if (row === undefined) return undefined;
    if (row.awaited) return { id: row.id, store: row.store, size: row.size, stored: row.state === 'stored' };
    return row.state === 'stored' ? 'closed' : undefined;
  }

  /** Where blobs lie, by id; those that are gone are missing. */
  async places(ids: readonly string[]): Promise<ReadonlyMap<string, Placed>> {
    if (ids.length === 0) return new Map();
    const rows = await this.#db.selectFrom('blob').select(['id', 'store', 'key']).where('id', 'in', ids).execute();
    return new Map(rows.map(({ id, store, key }) => [id, { store, key }]));
  }

  /**
   * Where a client that follows redirects gets a blob from, if the store wants that; good for as long as a download takes to
   * begin.
   */
  async redirectTo({ store, key }: BlobPlace, fileName: string, forPage: boolean): Promise<string | undefined> {
    const { direct } = this.stores.get(store);
    return direct?.downloads === 'redirect' && (direct.pages || !forPage) ? direct.downloadLink(key, fileName, Date.now() + redirectMs) : undefined;
  }

  /**
   * Takes in what a client uploaded straight to the store, before its completion is judged. Nothing there, and another size
   * than declared, are for the completion to tell.
   */
  async takeIn(id: string): Promise<void> {
    if (!this.stores.anyDirectUploads) return;
    const upload = await this.findUpload(id);
    if (upload === undefined || upload === 'closed' || upload.stored) return;
    const uploads = this.stores.get(upload.store).direct?.uploads;
    if (uploads === undefined) return;
    const key = randomUUID();
    try {
      await this.#settle(upload, key, () => uploads.takeIn(id, key, upload.size));
    } catch (error) {
      if (error instanceof NoSuchObjectError || error instanceof SizeMismatchError) return;
      throw error;
    }
    // It counts already; what stays behind is the collector's.
    await uploads.drop(id).catch(() => undefined);
  }

  /** Takes the bytes of an upload in one piece. @throws SizeMismatchError */
  async upload(upload: OpenUpload, body: Readable): Promise<UploadOutcome> {
    const key = randomUUID();
    return this.#settle(upload, key, (store) => store.put(key, body, upload.size));
  }

  /** Puts the blocks of an upload together. @throws SizeMismatchError, UnknownBlockError */
  async commitBlocks(upload: OpenUpload, blockIds: readonly string[]): Promise<UploadOutcome> {
    const key = randomUUID();
    return this.#settle(upload, key, (store) => store.commitBlocks(upload.id, key, blockIds, upload.size));
  }

  /** Notes that an upload came in another size than declared, which its completion then reports. */
  async refuse(upload: OpenUpload): Promise<void> {
    await this.#db.updateTable('blob').set({ state: 'refused' }).where('id', '=', upload.id).where('state', '=', 'pending').execute();
  }

  /**
   * Writes under a fresh key and then claims the blob for it: of two uploads through one link the first claim wins, the
   * other is told so unless it brought the same bytes, and a crash in between leaves a stray object for the collector.
   */
  async #settle(upload: OpenUpload, key: string, write: (store: BlobStore) => Promise<StoredObject>): Promise<UploadOutcome> {
    const store = this.stores.get(upload.store);
    let stored: StoredObject;
    try {
      stored = await write(store);
    } catch (error) {
      if (error instanceof SizeMismatchError) await this.refuse(upload);
      throw error;
    }
    const claimed = await this.#db
      .updateTable('blob')
      .set({ state: 'stored', key, sha256: stored.sha256 })
      .where('id', '=', upload.id)
      .where('state', '!=', 'stored')
      .executeTakeFirst();
    if (claimed.numUpdatedRows > 0n) return 'stored';
    await store.delete(key);
    return (await this.findReadable(upload.id))?.sha256 === stored.sha256 ? 'stored' : 'conflict';
  }
}

/** Tables with rows that share a blob; pictures have theirs alone. */
const referringTables = ['changeset', 'baseline', 'pending_changeset', 'block'] as const;

/** Marks blobs as no longer needed since `now`, those that something else still refers to left out. */
export async function releaseBlobs(tx: Tx, ids: readonly string[], now: number): Promise<void> {
  if (ids.length === 0) return;
  await tx
    .updateTable('blob as b')
    .set({ released_at: now })
    .where('b.id', 'in', ids)
    .where((eb) =>
      eb.and(
        referringTables.map((table) =>
          eb.not(eb.exists(eb.selectFrom(table).select('blob_id').whereRef('blob_id', '=', 'b.id'))),
        ),
      ),
    )
    .execute();
}
