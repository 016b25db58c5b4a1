import { createHash, hash, randomBytes, randomUUID } from 'node:crypto';
import { open } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { Database, Db, Tx } from '../db/database.ts';
import type { BlobTable } from '../db/schema.ts';
import type { Account } from '../quotas/accounts.ts';
import type { BlobStore, ByteRange, CallOptions, OpenObject } from '../storage/blobStore.ts';
import type { BlobPlace, Blobs } from '../storage/blobs.ts';
import { ContentMismatchError } from '../storage/verifiedReads.ts';
import { intoFile } from '../storage/intoFile.ts';
import { piecesOf } from '../storage/byteSource.ts';
import { writeIdentity, type Identity, type IdentityOffsets } from './identity.ts';

/** Bytes of a block, the unit in which iTwin.js fetches a checkpoint. */
export const blockBytes = 4 * 1024 * 1024;

/** A model file in the store. */
export interface ModelFile extends IdentityOffsets {
  id: string;
  size: number;
  blocks: readonly StoredBlock[];
}

/** A block, and the place of its bytes. */
interface StoredBlock extends BlobPlace {
  /** Its name in containers: 32 hex digits, upper case. */
  id: string;
  start: number;
  /** Hex. */
  sha256: string;
}

/** A part of a model file, and where its bytes are. */
interface Piece extends BlobPlace {
  /** Offset in the stored object. */
  offset: number;
  length: number;
  /** Offset in the model file. */
  fileStart: number;
}

/** A file whose blocks are stored, but which has no row in the database yet. */
export interface UnrecordedFile extends IdentityOffsets {
  size: number;
  blockIds: readonly string[];
}

/** A blob that contains a whole model file, so that its blocks need not be stored again. */
export interface WholeBlob {
  blobId: string;
  /** SHA-256 of each of its blocks, hex; absent if the blob is the same file as the one to store. */
  hashes?: readonly string[];
  /** Row of the blob if it is not in the database yet. It is inserted with the first block that refers to it. */
  row?: BlobTable;
}

/** Stores model files as blocks. Blocks of equal content are stored once for all files. */
export class ModelFiles {
  readonly #database: Database;
  readonly #blobs: Blobs;

  constructor(database: Database, blobs: Blobs) {
    this.#database = database;
    this.#blobs = blobs;
  }

  /**
   * Writes the blocks of a file to a store, except those that it already has. Must precede `record`, and may be
   * repeated. The collector deletes blocks that no file refers to.
   * @param account account to which the size of the blocks is charged
   */
  async store(
    store: BlobStore,
    account: Account,
    file: string,
    offsets: IdentityOffsets,
    whole: WholeBlob | undefined,
    options: CallOptions = {},
  ): Promise<UnrecordedFile> {
    const handle = await open(file, 'r');
    try {
      const { size } = await handle.stat();
      const blockIds: string[] = [];
      for (let start = 0; start < size; start += blockBytes) {
        options.signal?.throwIfAborted();
        options.onProgress?.();
        const bytes = Buffer.alloc(Math.min(blockBytes, size - start));
        await handle.read(bytes, 0, bytes.length, start);
        const sha256 = createHash('sha256').update(bytes).digest('hex');
        const existing =
          whole !== undefined && (whole.hashes === undefined || whole.hashes[start / blockBytes] === sha256)
            ? { blobId: whole.blobId, row: whole.row, start }
            : undefined;
        blockIds.push(
          (await this.#known(store, sha256)) ?? (await this.#add(store, account, bytes, sha256, existing, options)),
        );
      }
      return { size, blockIds, ...offsets };
    } finally {
      await handle.close();
    }
  }

  async #known(store: BlobStore, sha256: string): Promise<string | undefined> {
    return (await blockIn(this.#database.db, store.id, sha256))?.id;
  }

  async #add(
    store: BlobStore,
    account: Account,
    bytes: Buffer,
    sha256: string,
    existing: { blobId: string; row: BlobTable | undefined; start: number } | undefined,
    options: CallOptions,
  ): Promise<string> {
    const id = randomBytes(16).toString('hex').toUpperCase();
    const place = existing ?? { blobId: randomUUID(), start: 0 };
    const key = randomUUID();
    if (existing === undefined) await store.put(key, Readable.from([bytes]), bytes.length, options);
    const storedId = await this.#database.db.transaction().execute(async (tx) => {
      const other = await blockIn(tx, store.id, sha256);
      if (other !== undefined) return other.id;
      if (existing === undefined)
        await tx
          .insertInto('blob')
          .values({
            id: place.blobId,
            store: store.id,
            key,
            size: bytes.length,
            sha256,
            state: 'stored',
            created_at: Date.now(),
            released_at: null,
            ...account,
          })
          .execute();
      else if (existing.row !== undefined)
        await tx
          .insertInto('blob')
          .values(existing.row)
          .onConflict((conflict) => conflict.doNothing())
          .execute();
      await tx
        .insertInto('block')
        .values({ id, store: store.id, sha256, blob_id: place.blobId, start: place.start })
        .execute();
      return id;
    });
    if (storedId !== id && existing === undefined) await store.delete(key, options);
    return storedId;
  }

  /** Inserts the rows of a stored file, in the transaction of the row that refers to it. @returns the id of the file */
  async record(tx: Tx, file: UnrecordedFile): Promise<string> {
    const id = randomUUID();
    await tx
      .insertInto('model_file')
      .values({
        id,
        size: file.size,
        imodel_id_offset: file.iModelIdOffset,
        itwin_id_offset: file.iTwinIdOffset,
        created_at: Date.now(),
      })
      .execute();
    // SQLite allows 32,766 parameters per statement.
    const rows = file.blockIds.map((block_id, position) => ({ file_id: id, position, block_id }));
    for (let n = 0; n < rows.length; n += 1000)
      await tx
        .insertInto('model_file_block')
        .values(rows.slice(n, n + 1000))
        .execute();
    return id;
  }

  async find(id: string): Promise<ModelFile | undefined> {
    const row = await this.#database.db.selectFrom('model_file').selectAll().where('id', '=', id).executeTakeFirst();
    if (row === undefined) return undefined;
    const blocks = await this.#database.db
      .selectFrom('model_file_block as f')
      .innerJoin('block as k', 'k.id', 'f.block_id')
      .innerJoin('blob as b', 'b.id', 'k.blob_id')
      .select(['k.id', 'k.start', 'k.sha256', 'b.store', 'b.key'])
      .where('f.file_id', '=', id)
      .orderBy('f.position')
      .execute();
    return {
      id: row.id,
      size: row.size,
      iModelIdOffset: row.imodel_id_offset,
      iTwinIdOffset: row.itwin_id_offset,
      blocks: blocks.map(({ id: blockId, store, key, start, sha256 }) => ({
        id: blockId,
        store,
        key: key as string,
        start,
        sha256,
      })),
    };
  }

  /**
   * Opens a file, or a range of it, with the ids of one iModel. A file store's bytes get the ids in the memory that they were read
   * into, on their way: a buffer for each block took five times the CPU time, most of it for fresh pages of memory. From other
   * stores, one block is read while the sink has the one before, so that two blocks are in memory.
   * @throws ContentMismatchError if the store has fewer bytes, from `pour` if they are missing at the end
   */
  async open(
    file: ModelFile,
    identity: Identity,
    range: ByteRange = { start: 0, end: file.size - 1 },
  ): Promise<OpenObject> {
    const pieces = this.#piecesOf(file, range);
    const open = (piece: Piece | undefined): Promise<OpenObject | undefined> => {
      const opening = piece === undefined ? Promise.resolve(undefined) : this.#openPiece(piece);
      // It is awaited after the piece before it, which may fail first.
      opening.catch(() => undefined);
      return opening;
    };
    let next = pieces.next().value;
    let opening = open(next);
    await opening;
    return {
      pour: async (sink) => {
        try {
          while (next !== undefined) {
            const { fileStart, length } = next;
            const object = await opening;
            opening = open((next = pieces.next().value));
            let poured = 0;
            await object?.pour((chunk) => {
              writeIdentity(chunk, fileStart + poured, file, identity);
              poured += chunk.length;
              return sink(chunk);
            });
            if (poured !== length) throw new ContentMismatchError();
          }
        } finally {
          await opening.then((object) => object?.close()).catch(() => undefined);
        }
      },
      close: async () => (await opening)?.close(),
    };
  }

  /** The stored parts of a range in order. Blocks that follow each other in an object of a file store are one part. */
  *#piecesOf(file: ModelFile, range: ByteRange): Generator<Piece, undefined> {
    let piece: Piece | undefined;
    const end = Math.min(range.end + 1, file.size);
    for (let start = range.start; start < end;) {
      const position = Math.floor(start / blockBytes);
      const blockStart = position * blockBytes;
      const { store, key, start: objectStart } = file.blocks[position] as StoredBlock;
      const length = Math.min(blockStart + blockBytes, end) - start;
      const offset = objectStart + start - blockStart;
      if (
        piece?.store === store &&
        piece.key === key &&
        piece.offset + piece.length === offset &&
        this.#blobs.opener(piece) !== undefined
      )
        piece.length += length;
      else {
        if (piece !== undefined) yield piece;
        piece = { store, key, offset, length, fileStart: start };
      }
      start += length;
    }
    if (piece !== undefined) yield piece;
  }

  async #openPiece({ offset, length, ...place }: Piece, options?: CallOptions): Promise<OpenObject> {
    const range = { start: offset, end: offset + length - 1 };
    const open = this.#blobs.opener(place);
    if (open !== undefined) return open(range, options);
    // Filled completely, or not used.
    const bytes = Buffer.allocUnsafeSlow(length);
    let filled = 0;
    for await (const chunk of await this.#blobs.read(place, range, options))
      filled += (chunk as Buffer).copy(bytes, filled);
    if (filled !== length) throw new ContentMismatchError();
    return { pour: (sink) => sink(bytes), close: () => Promise.resolve() };
  }

  /** The blocks of a file in order, verified, with the ids written over them. Only one block at a time is in memory. */
  async *#verified(file: ModelFile, identity: Identity, options: CallOptions): AsyncGenerator<Buffer> {
    for (const [position, { sha256, start: offset, ...place }] of file.blocks.entries()) {
      const fileStart = position * blockBytes;
      const length = Math.min(blockBytes, file.size - fileStart);
      const bytes = Buffer.allocUnsafeSlow(length);
      let filled = 0;
      await (
        await this.#openPiece({ ...place, offset, length, fileStart }, options)
      ).pour(async (chunk) => {
        filled += chunk.copy(bytes, filled);
      });
      if (filled !== length || hash('sha256', bytes, 'hex') !== sha256) throw new ContentMismatchError();
      writeIdentity(bytes, fileStart, file, identity);
      yield* piecesOf(bytes);
    }
  }

  /** Writes a file to disk. @throws ContentMismatchError if a block has another hash than the one recorded */
  async writeTo(file: ModelFile, identity: Identity, target: string, options: CallOptions): Promise<void> {
    await intoFile(target, 'w', (sink) =>
      pipeline(Readable.from(this.#verified(file, identity, options), { objectMode: false }), sink, {
        signal: options.signal,
      }),
    );
  }
}

/** The block with the given hash in one store. */
export async function blockIn(db: Db, store: string, sha256: string): Promise<{ id: string } | undefined> {
  return db.selectFrom('block').select('id').where('sha256', '=', sha256).where('store', '=', store).executeTakeFirst();
}

/** SHA-256 of each block of a file, hex. */
export async function blockHashes(file: string): Promise<string[]> {
  const handle = await open(file, 'r');
  try {
    const hashes: string[] = [];
    const bytes = Buffer.alloc(blockBytes);
    for (let start = 0; ; start += blockBytes) {
      const { bytesRead } = await handle.read(bytes, 0, blockBytes, start);
      if (bytesRead > 0) hashes.push(createHash('sha256').update(bytes.subarray(0, bytesRead)).digest('hex'));
      if (bytesRead < blockBytes) return hashes;
    }
  } finally {
    await handle.close();
  }
}

/** Deletes the rows that `record` inserted. The blocks stay until the collector finds that no file refers to them. */
export async function deleteModelFile(tx: Tx, fileId: string): Promise<void> {
  await tx.deleteFrom('model_file_block').where('file_id', '=', fileId).execute();
  await tx.deleteFrom('model_file').where('id', '=', fileId).execute();
}
