import type { Readable } from 'node:stream';
import { UnavailableError } from '../outages.ts';

/** What a store holds under a key. */
export interface StoredObject {
  /** Bytes. */
  size: number;
  /** SHA-256 of the bytes, hex, taken while they came in. */
  sha256: string;
}

/** How one call of a store is watched and ended. */
export interface CallOptions {
  /** Ends the call, and for `read` the stream that it gave, with the reason of the signal. */
  signal?: AbortSignal | undefined;
  /** Called whenever bytes or entries pass, so that whoever waits can tell a long call from one that hangs. */
  onProgress?: (() => void) | undefined;
}

/** How blocks are put together. */
export interface CommitOptions extends CallOptions {
  /** MD5 that the whole object must have, hex. */
  md5?: string | undefined;
}

/** How unfinished uploads are dropped. */
export interface DropOptions extends CallOptions {
  /** Whether an upload is still expected to end: its blocks stay, however old they are. Without it none is. */
  isAwaited?: ((upload: string) => Promise<boolean>) | undefined;
}

/** Bytes `start` to `end`, both included, counted from 0. */
export interface ByteRange {
  start: number;
  end: number;
}

/**
 * How clients reach a store by themselves, so that their bytes do not pass through the server. Every address is good for one
 * object, one direction and its time, as the links of the server are.
 */
export interface DirectAccess {
  /** `link` = answers hold addresses of the store; `redirect` = the server's own links lead there, for clients that follow. */
  readonly downloads: 'link' | 'redirect';
  /** Whether pages in a browser may go there too, which the service has to allow by a CORS rule. */
  readonly pages: boolean;
  /** @param expires ms since 1970 */
  downloadLink(key: string, fileName: string, expires: number): Promise<string>;
  /** Absent where uploads have to go through the server. */
  readonly uploads?: DirectUploads;
}

/**
 * Uploads straight to a store. They arrive outside all keys: whoever holds the link may write there until it expires, so an
 * object counts only once it was copied to a key that no link lets anybody write.
 */
interface DirectUploads {
  /** @param expires ms since 1970 */
  link(upload: string, expires: number): Promise<string>;
  /**
   * Copies what was uploaded to `key`, within the store, and reads it once for its hash.
   * @throws NoSuchObjectError when nothing was uploaded, UnreadableObjectError, SizeMismatchError when it has another size; nothing is
   * kept then
   */
  finalize(upload: string, key: string, size: number, options?: CallOptions): Promise<StoredObject>;
  /** What lies there, by upload, with all that the service keeps for it: blocks that are not put together yet, snapshots. */
  uploaded(options?: CallOptions): AsyncIterable<{ upload: string; bytes: number }>;
  /** Removes what was uploaded, and all that the service keeps for it; nothing there is no error. */
  drop(upload: string, options?: CallOptions): Promise<void>;
}

/**
 * The seam to whatever keeps files. Objects are written once under a key chosen by the caller and never change; a key
 * holds either nothing or the whole object, also after a crash. Every implementation passes `test/suites/blobStore.ts`.
 * Implementations heed the signal of a call where they can; `GuardedStore` ends every call that makes no progress.
 */
export interface BlobStore {
  /** Name kept beside each blob, so that a blob is found again when there are several stores. */
  readonly id: string;

  /**
   * Writes one object, visible under `key` only when complete and durable.
   * @param size bytes that must come, no more and no fewer
   * @throws SizeMismatchError when they do not; nothing is kept
   */
  put(key: string, body: Readable, size: number, options?: CallOptions): Promise<StoredObject>;

  /**
   * Keeps one block of a large upload aside, outside all keys, in the place of an earlier one with the same id. All blocks of an
   * upload take no more than a small multiple of what it declares: those that were staged first are dropped when more come.
   * @param upload names the upload that the block belongs to
   * @param size bytes that the whole upload shall have
   * @throws SizeMismatchError when one block has more; an earlier block with the same id stays
   */
  stageBlock(upload: string, blockId: string, body: Readable, size: number, options?: CallOptions): Promise<void>;

  /** Sizes of the staged blocks of an upload, by their ids. */
  stagedBlocks(upload: string, options?: CallOptions): Promise<ReadonlyMap<string, number>>;

  /** Reads a staged block; rejects with UnknownBlockError when there is none. */
  readBlock(upload: string, blockId: string, options?: CallOptions): Promise<Readable>;

  /**
   * Puts staged blocks together, in the order given, as one object under `key`. They stay staged, so that a commit whose result
   * was lost can be repeated: `dropBlocks` follows when it is known to the database.
   * @throws UnknownBlockError when a block was never staged, SizeMismatchError when they do not add up to `size`,
   * ChecksumMismatchError; nothing is kept then
   */
  commitBlocks(
    upload: string,
    key: string,
    blockIds: readonly string[],
    size: number,
    options?: CommitOptions,
  ): Promise<StoredObject>;

  /** Drops what is staged for an upload; nothing there is no error. */
  dropBlocks(upload: string, options?: CallOptions): Promise<void>;

  /** Reads an object or a range of it; rejects with NoSuchObjectError when there is none. */
  read(key: string, range?: ByteRange, options?: CallOptions): Promise<Readable>;

  /** Absent where clients cannot reach the store, or shall not. */
  readonly direct?: DirectAccess | undefined;

  /**
   * Copies an object of another store to `key`, without its bytes passing through the server but for the hash, and only where
   * the service does not tell that.
   * @returns undefined where the two stores cannot
   * @throws NoSuchObjectError, SizeMismatchError; nothing is kept then
   */
  copyFrom?(
    source: BlobStore,
    sourceKey: string,
    key: string,
    size: number,
    options?: CallOptions,
  ): Promise<StoredObject | undefined>;

  /** Whether the store can be reached. @throws what keeps it from that */
  check(options?: CallOptions): Promise<void>;

  /**
   * Marks the store as an installation's own, if it is nobody's yet: of two on one store each would take the files of the other
   * for strays. @returns the installation that it belongs to
   */
  claim(installation: string, options?: CallOptions): Promise<string>;

  /** Removes an object; nothing there is no error. */
  delete(key: string, options?: CallOptions): Promise<void>;

  /** Every key with size and age. */
  list(options?: CallOptions): AsyncIterable<{ key: string; size: number; modifiedAt: number }>;

  /** Drops uploads that were left unfinished before `before` (ms since 1970). */
  dropUnfinished(before: number, options?: DropOptions): Promise<void>;
}

/** More or fewer bytes came than were declared. */
export class SizeMismatchError extends Error {
  constructor(declared: number) {
    super(`the upload does not have the declared ${declared} bytes`);
    this.name = 'SizeMismatchError';
  }
}

/** A store did not answer, or moved no bytes, for longer than it may: a fault of the installation that another attempt may not meet. */
export class StoreTimeoutError extends UnavailableError {
  constructor(store: string, seconds: number) {
    super(`the store '${store}' made no progress for ${seconds} s`);
    this.name = 'StoreTimeoutError';
  }
}

/** The bytes that came do not have the MD5 that was sent with them. */
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

/** Whoever uploaded an object made it so that the store cannot read it: archived, encrypted with a key of their own. */
export class UnreadableObjectError extends Error {
  constructor(key: string, cause?: unknown) {
    super(`the store cannot read the object '${key}'`, { cause });
    this.name = 'UnreadableObjectError';
  }
}

/** The store has nothing under a key that the database refers to: a fault of the installation, never of a client. */
export class NoSuchObjectError extends Error {
  constructor(key: string) {
    super(`the store has no object '${key}'`);
    this.name = 'NoSuchObjectError';
  }
}
