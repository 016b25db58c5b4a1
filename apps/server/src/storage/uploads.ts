import { createHash, randomUUID } from 'node:crypto';
import type { Readable } from 'node:stream';
import type { FastifyBaseLogger } from 'fastify';
import { sql } from 'kysely';
import { BoundedCache } from '../boundedCache.ts';
import { compiledQuery } from '../db/compiledQuery.ts';
import { isForeignKeyError, type Db } from '../db/database.ts';
import {
  NoSuchObjectError,
  SizeMismatchError,
  UnknownBlockError,
  UnreadableObjectError,
  type BlobStore,
  type StoredObject,
} from './blobStore.ts';
import type { Stores } from './stores.ts';

/** The upload behind a link. */
export interface Upload {
  id: string;
  /** Id of the target store. */
  store: string;
  /** Declared size, bytes. */
  size: number;
  /**
   * `open`: a push or a baseline waits for it. `closed`: the push or baseline is complete, and repeated requests change
   * nothing. `lost`: the push was abandoned in favor of another one.
   */
  state: 'open' | 'closed' | 'lost';
  /** The stored object, if any. */
  stored: { key: string; sha256: string } | undefined;
  /** When bytes were last received, ms since 1970; null if not recorded. */
  activeAt: number | null;
  /** End of the lease of its push, ms since 1970; null for a baseline. */
  leaseUntil: number | null;
  /** Parent of the changeset that its push begins; null for a baseline. */
  parentId: string | null;
}

/**
 * Result of an upload. `conflict`: other bytes are already stored. `lost`: no push or baseline waits for it any more.
 */
export type UploadOutcome = 'stored' | 'conflict' | 'lost';

/** How long a stored file waits for its completion, and how long a direct upload stays pending. */
export const completionMs = 24 * 3600 * 1000;
/** Minimum speed expected of direct uploads. */
const slowestDirectBytesPerSecond = 1024 * 1024;
/** Number of uploads whose last record is cached. */
const rememberedNotes = 10_000;

/**
 * Receives uploads: whole or in blocks through links of the server, or directly to the store. Every request may be
 * repeated, because answers can be lost. While bytes arrive, the progress is recorded periodically. This renews the
 * lease of a push, and lets the upload continue after its link has expired.
 */
export class Uploads {
  readonly #db: Db;
  readonly #stores: Stores;
  readonly #log: FastifyBaseLogger;
  readonly #leaseMs: number;
  readonly #linkLifeMs: number;
  /** Interval at which progress is recorded. */
  readonly #noteEveryMs: number;
  /** When this server last recorded the progress of an upload, on its monotonic clock. */
  readonly #noted = new BoundedCache<string, number>(rememberedNotes);
  /** Running commits, by upload and block list. A repeated commit gets the answer of the first. */
  readonly #commits = new Map<string, Promise<UploadOutcome>>();

  constructor(
    db: Db,
    stores: Stores,
    log: FastifyBaseLogger,
    config: { pushLeaseSeconds: number; signedLinkSeconds: number },
  ) {
    this.#db = db;
    this.#stores = stores;
    this.#log = log;
    this.#leaseMs = config.pushLeaseSeconds * 1000;
    this.#linkLifeMs = config.signedLinkSeconds * 1000;
    this.#noteEveryMs = Math.min(this.#leaseMs, this.#linkLifeMs) / 3;
  }

  /**
   * Lease of a push that starts now, unless its upload renews the lease. A direct upload cannot renew it, so its lease
   * is one second longer for each MiB, up to the lifetime of a link.
   */
  leaseMs({ direct }: BlobStore, size: number): number {
    if (direct?.uploads === undefined) return this.#leaseMs;
    return Math.max(
      this.#leaseMs,
      Math.min(this.#leaseMs + Math.ceil(size / slowestDirectBytesPerSecond) * 1000, this.#linkLifeMs),
    );
  }

  /** The upload of a blob; undefined if the blob does not exist or no longer waits for an upload. */
  async find(id: string): Promise<Upload | undefined> {
    const row = await uploadOfBlob.first(this.#db, { id });
    if (row === undefined) return undefined;
    const { store, size, key, sha256 } = row;
    const stored = row.state === 'stored' && key !== null && sha256 !== null ? { key, sha256 } : undefined;
    const known = {
      id,
      store,
      size,
      stored,
      activeAt: row.active_at,
      leaseUntil: row.lease_until,
      parentId: row.parent_id,
    };
    if (row.lease_until !== null || row.baseline_id !== null) return { ...known, state: 'open' };
    if (row.abandoned !== null) return { ...known, state: 'lost' };
    return stored !== undefined && row.released_at === null ? { ...known, state: 'closed' } : undefined;
  }

  /**
   * Whether an upload may continue after its link has expired: it started in time, and received bytes within the
   * lifetime of a link.
   */
  isActive({ activeAt }: Upload): boolean {
    return activeAt !== null && Date.now() - activeAt < this.#linkLifeMs;
  }

  /**
   * Records that a request for an open upload starts, so that the upload may continue after its link has expired, and
   * renews its lease. A push whose lease was granted just now needs no record, unless it is uploaded in blocks.
   */
  async noteStart(upload: Upload, inBlocks: boolean): Promise<void> {
    if (upload.state !== 'open' || this.#isNoted(upload.id)) return;
    const leftMs = (upload.leaseUntil ?? 0) - Date.now();
    // A lease that ends later than a new one would was granted before the clock was set back.
    const fresh = leftMs > this.#leaseMs - this.#noteEveryMs && leftMs <= Math.max(this.#leaseMs, this.#linkLifeMs);
    if (fresh && !inBlocks) this.#noted.set(upload.id, performance.now());
    else await this.#note(upload.id);
  }

  /** Records that bytes are arriving. May be called for every chunk. */
  noteProgress(upload: Upload): void {
    if (upload.state !== 'open' || this.#isNoted(upload.id)) return;
    this.#note(upload.id).catch((error: unknown) =>
      this.#log.warn({ err: error, blob: upload.id }, 'cannot record the progress of an upload; will retry'),
    );
  }

  /** Stores the whole file. The chunks of the body belong to the store. @throws SizeMismatchError; errors of the body */
  async put(upload: Upload, body: Readable): Promise<UploadOutcome> {
    if (upload.stored === undefined)
      return this.#settle(upload, (store, key) => store.put(key, body, upload.size, { takesChunks: true }));
    const hash = createHash('sha256');
    for await (const chunk of body) hash.update(chunk as Buffer);
    return hash.digest('hex') === upload.stored.sha256 ? 'stored' : 'conflict';
  }

  /**
   * Stages one block and replaces an earlier one with the same id. The chunks of the body belong to the store.
   * @throws SizeMismatchError; errors of the body
   */
  async stageBlock({ id, store, size }: Upload, blockId: string, body: Readable): Promise<void> {
    await this.#stores.get(store).stageBlock(id, blockId, body, size, { takesChunks: true });
  }

  /**
   * Commits the blocks of an upload.
   * @param md5 expected MD5 of the whole file, hex
   * @throws SizeMismatchError, UnknownBlockError, ChecksumMismatchError
   */
  async commitBlocks(upload: Upload, blockIds: readonly string[], md5?: string): Promise<UploadOutcome> {
    const list = createHash('sha256').update(JSON.stringify(blockIds)).digest('hex');
    const work = `${upload.id}/${list}/${md5 ?? ''}`;
    let outcome = this.#commits.get(work);
    if (outcome === undefined) {
      outcome = this.#commit(upload, blockIds, list, md5).finally(() => this.#commits.delete(work));
      this.#commits.set(work, outcome);
    }
    return outcome;
  }

  /** Records that an upload has another size than declared. Its completion reports this. */
  async refuse(upload: Upload): Promise<void> {
    await this.#db
      .updateTable('blob')
      .set({ state: 'refused' })
      .where('id', '=', upload.id)
      .where('state', '=', 'pending')
      .execute();
  }

  /**
   * Finalizes a direct upload before its completion is checked. The completion reports if the object is missing,
   * unreadable or of the wrong size.
   */
  async finalize(id: string): Promise<void> {
    if (!this.#stores.anyDirectUploads) return;
    const upload = await this.find(id);
    if (upload?.state !== 'open' || upload.stored !== undefined) return;
    const uploads = this.#stores.get(upload.store).direct?.uploads;
    if (uploads === undefined) return;
    try {
      await this.#settle(upload, (_store, key) =>
        this.#whileNoted(upload, () => uploads.finalize(id, key, upload.size)),
      );
    } catch (error) {
      if (error instanceof UnreadableObjectError) {
        // The object may also be impossible to overwrite. It is removed, so that the client can upload again after the
        // answer that nothing was uploaded.
        await uploads.drop(id);
        return;
      }
      if (error instanceof NoSuchObjectError || error instanceof SizeMismatchError) return;
      throw error;
    }
    // The upload is already stored. If this fails, the collector removes the rest.
    await uploads.drop(id).catch(() => undefined);
  }

  async #commit(
    upload: Upload,
    blockIds: readonly string[],
    list: string,
    md5: string | undefined,
  ): Promise<UploadOutcome> {
    const store = this.#stores.get(upload.store);
    if (upload.stored !== undefined) return this.#repeated(upload, upload.stored, blockIds, list);
    try {
      const staged = await store.stagedBlocks(upload.id);
      const sizes = blockIds.map((id) => staged.get(id) ?? throwUnknownBlock(id));
      const commit = (_store: BlobStore, key: string): Promise<StoredObject> =>
        this.#whileNoted(upload, () => store.commitBlocks(upload.id, key, blockIds, upload.size, { md5 }));
      const outcome = await this.#settle(upload, commit, { list, sizes });
      await this.#dropBlocks(upload);
      return outcome;
    } catch (error) {
      // Another server may have committed the same list and dropped the blocks.
      const now = error instanceof UnknownBlockError ? await this.find(upload.id) : undefined;
      if (now?.stored === undefined) throw error;
      return this.#repeated(now, now.stored, blockIds, list);
    }
  }

  /**
   * Handles a block list for a file that is already stored. Rule of Azure: an id refers to the latest staged block, or
   * else to the committed one. The committed list therefore gives the same file unless blocks were staged since.
   */
  async #repeated(
    upload: Upload,
    stored: { key: string; sha256: string },
    blockIds: readonly string[],
    list: string,
  ): Promise<UploadOutcome> {
    const store = this.#stores.get(upload.store);
    const row = await this.#db
      .selectFrom('upload')
      .select(['block_list_sha256', 'block_sizes'])
      .where('blob_id', '=', upload.id)
      .executeTakeFirst();
    const committed = row?.block_list_sha256 === list ? (JSON.parse(row.block_sizes ?? '[]') as number[]) : undefined;
    const staged = await store.stagedBlocks(upload.id);
    if (committed !== undefined && !blockIds.some((id) => staged.has(id))) return 'stored';
    const hash = createHash('sha256');
    let start = 0;
    for (const [position, id] of blockIds.entries()) {
      const size = committed?.[position] ?? staged.get(id) ?? throwUnknownBlock(id);
      if (size > 0)
        for await (const chunk of staged.has(id)
          ? await store.readBlock(upload.id, id)
          : await store.read(stored.key, { start, end: start + size - 1 }))
          hash.update(chunk as Buffer);
      start += size;
    }
    if (hash.digest('hex') !== stored.sha256) return 'conflict';
    await this.#dropBlocks(upload);
    return 'stored';
  }

  /** Blocks that cannot be dropped now are dropped by the collector. */
  async #dropBlocks({ id, store }: Upload): Promise<void> {
    await this.#stores
      .get(store)
      .dropBlocks(id)
      .catch((error: unknown) =>
        this.#log.warn(
          { err: error, blob: id },
          'cannot drop the blocks of a finished upload; the collector will retry',
        ),
      );
  }

  /**
   * Writes the object under a new key and then records the key in the blob. Of two uploads through one link, the first
   * to be recorded wins; the other gets a conflict unless it has the same bytes. A crash in between leaves an orphan
   * for the collector.
   */
  async #settle(
    upload: Upload,
    write: (store: BlobStore, key: string) => Promise<StoredObject>,
    blocks?: { list: string; sizes: readonly number[] },
  ): Promise<UploadOutcome> {
    const store = this.#stores.get(upload.store);
    const key = randomUUID();
    let object: StoredObject;
    try {
      object = await write(store, key);
    } catch (error) {
      if (error instanceof SizeMismatchError) await this.refuse(upload);
      throw error;
    }
    const record = { id: upload.id, key, sha256: object.sha256 };
    const claimed = await (blocks === undefined
      ? recordStored.run(this.#db, record).then((changed) => changed > 0)
      : this.#recordBlocks(record, blocks));
    if (claimed) return 'stored';
    await store.delete(key);
    const now = await this.find(upload.id);
    if (now?.stored === undefined || now.state === 'lost') return 'lost';
    return now.stored.sha256 === object.sha256 ? 'stored' : 'conflict';
  }

  /** Records a file that was stored in blocks, together with its list. @returns false if another file was recorded first */
  async #recordBlocks(record: StoredRecord, blocks: { list: string; sizes: readonly number[] }): Promise<boolean> {
    return this.#db.transaction().execute(async (tx) => {
      if ((await recordStored.run(tx, record)) === 0) return false;
      const row = { active_at: Date.now(), block_list_sha256: blocks.list, block_sizes: JSON.stringify(blocks.sizes) };
      await tx
        .insertInto('upload')
        .values({ blob_id: record.id, ...row })
        .onConflict((conflict) => conflict.column('blob_id').doUpdateSet(row))
        .execute();
      return true;
    });
  }

  /** Renews the lease while the server processes received bytes, for at most the lifetime of a link. */
  async #whileNoted<T>(upload: Upload, work: () => Promise<T>): Promise<T> {
    const until = performance.now() + this.#linkLifeMs;
    const noting = setInterval(() => {
      if (performance.now() < until) this.noteProgress(upload);
    }, this.#noteEveryMs);
    try {
      return await work();
    } finally {
      clearInterval(noting);
    }
  }

  #isNoted(id: string): boolean {
    return performance.now() - (this.#noted.get(id) ?? -Infinity) < this.#noteEveryMs;
  }

  async #note(id: string): Promise<void> {
    this.#noted.set(id, performance.now());
    const now = Date.now();
    try {
      await this.#db.transaction().execute(async (tx) => {
        await tx
          .updateTable('pending_changeset')
          .set({ lease_until: now + this.#leaseMs })
          .where('blob_id', '=', id)
          .execute();
        await tx
          .insertInto('upload')
          .values({ blob_id: id, active_at: now, block_list_sha256: null, block_sizes: null })
          .onConflict((conflict) => conflict.column('blob_id').doUpdateSet({ active_at: now }))
          .execute();
      });
    } catch (error) {
      this.#noted.delete(id);
      // The blob was deleted concurrently. The upload reports this when it ends.
      if (!isForeignKeyError(error)) throw error;
    }
  }
}

/** A blob and what may wait for its upload: a push or a baseline. */
const uploadOfBlob = compiledQuery((db, { id }: { id: string }) =>
  db
    .selectFrom('blob as b')
    .leftJoin('pending_changeset as p', 'p.blob_id', 'b.id')
    .leftJoin('baseline as l', (join) =>
      join.onRef('l.blob_id', '=', 'b.id').on('l.state', '=', sql.lit('waitingForFile')),
    )
    .leftJoin('upload as u', 'u.blob_id', 'b.id')
    .leftJoin('abandoned_push as a', 'a.blob_id', 'b.id')
    .select([
      'b.id',
      'b.store',
      'b.size',
      'b.key',
      'b.sha256',
      'b.state',
      'b.released_at',
      'p.lease_until',
      'p.parent_id',
      'l.id as baseline_id',
      'u.active_at',
      'a.blob_id as abandoned',
    ])
    .where('b.id', '=', id)
    .limit(sql.lit(1)),
);

interface StoredRecord {
  /** Id of the blob. */
  id: string;
  key: string;
  sha256: string;
}

/** Records where the bytes of a blob are, unless others are recorded or nothing refers to the blob any more. */
const recordStored = compiledQuery((db, { id, key, sha256 }: StoredRecord) =>
  db
    .updateTable('blob')
    .set({ state: sql.lit('stored'), key, sha256 })
    .where('id', '=', id)
    .where('state', '!=', sql.lit('stored'))
    .where('released_at', 'is', null),
);

function throwUnknownBlock(blockId: string): never {
  throw new UnknownBlockError(blockId);
}
