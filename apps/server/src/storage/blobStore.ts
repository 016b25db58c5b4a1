import type { Readable } from 'node:stream';
import { UnavailableError } from '../outages.ts';

/** Properties of a stored object. */
export interface StoredObject {
  /** Bytes. */
  size: number;
  /** SHA-256 of the bytes, hex, computed while they were received. */
  sha256: string;
}

/** How a call of a store is monitored and aborted. */
export interface CallOptions {
  /** Aborts the call, and for `read` also the returned stream, with the reason of the signal. */
  signal?: AbortSignal | undefined;
  /**
   * Called whenever bytes or entries are transferred, so that the caller can distinguish a long call from a stuck one.
   */
  onProgress?: (() => void) | undefined;
}

/** Options for storing a body. */
export interface PutOptions extends CallOptions {
  /** Whether the chunks of the body belong to the store, which may move their memory to a thread. Nobody else may use them then. */
  takesChunks?: boolean | undefined;
}

/** Options for committing blocks. */
export interface CommitOptions extends CallOptions {
  /** Expected MD5 of the whole object, hex. */
  md5?: string | undefined;
}

/** Options for copying an object. */
export interface CopyOptions extends CallOptions {
  /** The copy may be lost in a power cut until `settle` has returned. Many copies are made durable at once much faster. */
  settledLater?: boolean | undefined;
}

/** Options for dropping unfinished uploads. */
export interface DropOptions extends CallOptions {
  /** Whether an upload is still pending; its blocks are kept at any age. If absent, no upload is pending. */
  isAwaited?: ((upload: string) => Promise<boolean>) | undefined;
}

/** Bytes `start` to `end`, inclusive, counted from 0. */
export interface ByteRange {
  start: number;
  end: number;
}

/**
 * Direct access of clients to a store, so that their bytes do not pass through the server. Like the server's own links,
 * every address is valid for one object, one direction and a limited time.
 */
export interface DirectAccess {
  /**
   * `link`: answers contain addresses of the store. `redirect`: the server's own links redirect there, for clients that
   * follow redirects.
   */
  readonly downloads: 'link' | 'redirect';
  /** Whether browsers may access the store too. The service needs a CORS rule that allows it. */
  readonly pages: boolean;
  /** @param expires ms since 1970 */
  downloadLink(key: string, fileName: string, expires: number): Promise<string>;
  /** Absent if uploads have to pass through the server. */
  readonly uploads?: DirectUploads;
}

/**
 * Uploads directly to a store. They are written outside all keys, because the holder of a link can write until it
 * expires. An object is valid only after it was copied to a key that no link can write.
 */
interface DirectUploads {
  /** @param expires ms since 1970 */
  link(upload: string, expires: number): Promise<string>;
  /**
   * Copies the upload to `key` within the store, and reads it once to compute its hash. Keeps nothing if it fails.
   * @throws NoSuchObjectError if nothing was uploaded; SizeMismatchError; UnreadableObjectError
   */
  finalize(upload: string, key: string, size: number, options?: CallOptions): Promise<StoredObject>;
  /** All uploads, with the bytes that the service stores for them, including uncommitted blocks and snapshots. */
  uploaded(options?: CallOptions): AsyncIterable<{ upload: string; bytes: number }>;
  /** Removes an upload with its uncommitted blocks and snapshots. Does nothing if it does not exist. */
  drop(upload: string, options?: CallOptions): Promise<void>;
}

/**
 * Takes the bytes of an object, and may change the chunk, whose memory is the object's. Resolves when that may be used again.
 */
export type Sink = (chunk: Buffer) => Promise<void>;

/** An object that is open for reading. Either call must be made once. */
export interface OpenObject {
  /** Gives all bytes to a sink, in order, one chunk after the other, and closes the object, also on failure. */
  pour(sink: Sink): Promise<void>;
  /** Closes the object without reading it. */
  close(): Promise<void>;
}

/** A tile in a store. */
export interface StoredTile {
  content: string;
  name: string;
  /** Bytes. */
  size: number;
  /** ms since 1970, by the clock of the service */
  modifiedAt: number;
}

/**
 * Tiles in a store, beside its objects: whatever reads or lists objects does not see them. They can be made again at any
 * time, so there are no rows, backups or copies of them. A tile belongs to a content, the changeset or baseline that it
 * shows.
 */
export interface TileObjects {
  /** Rejects with NoSuchObjectError. */
  read(content: string, name: string, options?: CallOptions): Promise<Readable>;
  /** Writes a tile in one request, over an earlier one. */
  put(content: string, name: string, bytes: Buffer, options?: CallOptions): Promise<void>;
  /** Removes a tile, if it exists. */
  delete(content: string, name: string, options?: CallOptions): Promise<void>;
  /** The contents that have tiles. */
  contents(options?: CallOptions): AsyncIterable<string>;
  /** The tiles of one content, or all. */
  list(content: string | undefined, options?: CallOptions): AsyncIterable<StoredTile>;
}

/**
 * The interface of all stores. Objects are written once under a key chosen by the caller and never change. A key holds
 * either nothing or the whole object, also after a crash. Every implementation passes `test/suites/blobStore.ts`.
 * Implementations observe the signal of a call if they can; `GuardedStore` ends every call that makes no progress.
 */
export interface BlobStore {
  /** Id that is recorded with each blob, to find it again if there are several stores. */
  readonly id: string;

  /**
   * Writes one object. It becomes visible under `key` only when it is complete and durable.
   * @param size exact number of bytes that `body` must have
   * @throws SizeMismatchError; nothing is kept then
   */
  put(key: string, body: Readable, size: number, options?: PutOptions): Promise<StoredObject>;

  /**
   * Stages one block of a large upload, outside all keys. Replaces an earlier block with the same id. The blocks of an
   * upload are limited to a small multiple of its declared size; beyond that, the oldest ones are dropped.
   * @param upload id of the upload that the block belongs to
   * @param size declared size of the whole upload, bytes
   * @throws SizeMismatchError if the block is larger than that; an earlier block with the same id is kept
   */
  stageBlock(upload: string, blockId: string, body: Readable, size: number, options?: PutOptions): Promise<void>;

  /** Sizes of the staged blocks of an upload, by block id. */
  stagedBlocks(upload: string, options?: CallOptions): Promise<ReadonlyMap<string, number>>;

  /** Reads a staged block. Rejects with UnknownBlockError if there is none. */
  readBlock(upload: string, blockId: string, options?: CallOptions): Promise<Readable>;

  /**
   * Concatenates staged blocks in the given order to one object under `key`. The blocks stay staged, so that a commit
   * whose result was lost can be repeated. Call `dropBlocks` after the object was recorded in the database.
   * @throws UnknownBlockError if a block was not staged; SizeMismatchError if their sizes do not add up to `size`;
   * ChecksumMismatchError; nothing is kept then
   */
  commitBlocks(
    upload: string,
    key: string,
    blockIds: readonly string[],
    size: number,
    options?: CommitOptions,
  ): Promise<StoredObject>;

  /** Drops the staged blocks of an upload, if any. */
  dropBlocks(upload: string, options?: CallOptions): Promise<void>;

  /** Reads an object or a range of it. Rejects with NoSuchObjectError if there is none. */
  read(key: string, range?: ByteRange, options?: CallOptions): Promise<Readable>;

  /**
   * Opens an object, or a range of it, whose bytes are then given out in memory that is used again: for large responses, whose
   * cost is otherwise dominated by allocating buffers. Absent if the store only has streams.
   * @throws NoSuchObjectError
   */
  openObject?(key: string, range?: ByteRange, options?: CallOptions): Promise<OpenObject>;

  /** Absent if clients cannot or may not access the store directly. */
  readonly direct?: DirectAccess | undefined;

  /** Absent if only one server uses the store as a rule: it has the tiles in a folder already. */
  readonly tiles?: TileObjects | undefined;

  /**
   * Copies an object of another store to `key` without transferring it through the server. The server reads the copy
   * once if the service does not report its hash.
   * @returns undefined if the two stores cannot copy between each other
   * @throws NoSuchObjectError, SizeMismatchError; nothing is kept then
   */
  copyFrom?(
    source: BlobStore,
    sourceKey: string,
    key: string,
    size: number,
    options?: CopyOptions,
  ): Promise<StoredObject | undefined>;

  /** Makes copies durable that were made with `settledLater`. Absent if all copies are durable at once. */
  settle?(keys: readonly string[], options?: CallOptions): Promise<void>;

  /** Checks that the store can be reached. @throws the error that prevents it */
  check(options?: CallOptions): Promise<void>;

  /**
   * Marks the store as owned by an installation, unless it has an owner. If two installations shared a store, each
   * would treat the files of the other as orphans.
   * @returns the installation that owns the store
   */
  claim(installation: string, options?: CallOptions): Promise<string>;

  /** Removes an object, if it exists. */
  delete(key: string, options?: CallOptions): Promise<void>;

  /** Lists every key with size and time of modification. */
  list(options?: CallOptions): AsyncIterable<{ key: string; size: number; modifiedAt: number }>;

  /** Drops unfinished uploads that are older than `before` (ms since 1970). */
  dropUnfinished(before: number, options?: DropOptions): Promise<void>;
}

/** More or fewer bytes were received than declared. */
export class SizeMismatchError extends Error {
  constructor(declared: number) {
    super(`the upload does not have the declared ${declared} bytes`);
    this.name = 'SizeMismatchError';
  }
}

/**
 * A store did not answer or transfer bytes within the timeout. A fault of the installation, possibly a temporary one.
 */
export class StoreTimeoutError extends UnavailableError {
  constructor(store: string, seconds: number) {
    super(`the store '${store}' made no progress for ${seconds} s`);
    this.name = 'StoreTimeoutError';
  }
}

/** The received bytes do not have the MD5 that was sent with them. */
export class ChecksumMismatchError extends Error {
  constructor() {
    super('the bytes do not have the checksum that was sent with them');
    this.name = 'ChecksumMismatchError';
  }
}

/** A block list names a block that was not uploaded. */
export class UnknownBlockError extends Error {
  constructor(blockId: string) {
    super(`block '${blockId}' was not uploaded`);
    this.name = 'UnknownBlockError';
  }
}

/**
 * The client uploaded an object in a form that the store cannot read: archived, or encrypted with a key of the client.
 */
export class UnreadableObjectError extends Error {
  constructor(key: string, cause?: unknown) {
    super(`the store cannot read the object '${key}'`, { cause });
    this.name = 'UnreadableObjectError';
  }
}

/**
 * The store has no object under a key. If the database refers to the key, this is a fault of the installation, never of
 * a client.
 */
export class NoSuchObjectError extends Error {
  constructor(key: string) {
    super(`the store has no object '${key}'`);
    this.name = 'NoSuchObjectError';
  }
}
