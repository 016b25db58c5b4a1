import { createHash, type Hash } from 'node:crypto';
import { DamagedStreamError, Lzma2Decoder } from './lzma2.ts';

/** Header of a changeset file: its own size, `ChangeSetLzma`, version 0x10 of the format, 2 for LZMA2; 22 bytes, little-endian. */
const header = Buffer.concat([
  Buffer.from([22, 0]),
  Buffer.from('ChangeSetLzma\0\0\0', 'latin1'),
  Buffer.from([0x10, 0, 2, 0]),
]);
/** Largest accepted prefix, bytes: it contains the statements that change tables, of which at most 8 MiB are allowed when a changeset is applied. */
const maxPrefixBytes = 32 * 2 ** 20;
/** The most bytes that a file may unpack to, both when it is pushed and when it is applied. */
export const maxUnpackedBytes = 8 * 2 ** 30;

/** The file was not written by iTwin.js, or it is damaged: no id can be computed for it. */
export class ChangesetFileError extends Error {
  /** Whether the header is not that of the known changeset format. */
  readonly unknownFormat: boolean;
  constructor(message: string, options: { unknownFormat: boolean; cause?: unknown }) {
    super(message, { cause: options.cause });
    this.name = 'ChangesetFileError';
    this.unknownFormat = options.unknownFormat;
  }
}

/** Receives the unpacked contents while an id is computed. */
export interface ChangesetReaders {
  /** Called once with the prefix, without its terminating zero. An error that it throws ends the computation. */
  onPrefix?: (prefix: Buffer) => void;
  /** Called with each piece of the changes; a piece is valid only during the call. */
  onChanges?: (changes: Uint8Array) => void;
}

/**
 * Computes the id of a changeset file as iTwin.js does: SHA-1 over the parent's id (20 bytes, zeros for none), the prefix (a
 * C string that describes schema changes, with its terminating zero) and the changes, both unpacked. A file that is packed
 * differently has the same id.
 */
export class ChangesetIdComputer {
  readonly #hash: Hash;
  readonly #readers: ChangesetReaders;
  #head: Buffer = Buffer.alloc(0);
  #decoder: Lzma2Decoder | undefined;
  #prefix: PrefixReader = new PrefixReader();
  #unpackedBytes = 0;

  /** @param parentId 40 hex digits, `""` for the first changeset */
  constructor(parentId: string, readers: ChangesetReaders = {}) {
    this.#hash = createHash('sha1').update(parentId === '' ? Buffer.alloc(20) : Buffer.from(parentId, 'hex'));
    this.#readers = readers;
  }

  /** Bytes unpacked so far. */
  get unpackedBytes(): number {
    return this.#unpackedBytes;
  }

  /** Takes the next bytes of the file. @throws ChangesetFileError */
  update(bytes: Buffer): void {
    let packed = bytes;
    if (this.#decoder === undefined) {
      this.#head = Buffer.concat([this.#head, bytes]);
      if (this.#head.length <= header.length) {
        if (!this.#head.equals(header.subarray(0, this.#head.length))) throw notAChangeset();
        return;
      }
      if (!this.#head.subarray(0, header.length).equals(header)) throw notAChangeset();
      this.#decoder = unpacking(() => new Lzma2Decoder(this.#head[header.length] as number));
      packed = this.#head.subarray(header.length + 1);
    }
    const pieces = this.#decoder.push(packed);
    for (let piece = unpacking(() => pieces.next()); piece.done !== true; piece = unpacking(() => pieces.next()))
      this.#take(piece.value);
  }

  /** @returns the id, 40 hex digits. @throws ChangesetFileError when the file ended early */
  digest(): string {
    if (this.#decoder === undefined && this.#head.length === 0) throw notAChangeset();
    if (this.#decoder?.finished !== true || !this.#prefix.complete)
      throw new ChangesetFileError('the file ends early', { unknownFormat: false });
    return this.#hash.digest('hex');
  }

  #take(unpacked: Uint8Array): void {
    this.#unpackedBytes += unpacked.length;
    if (this.#unpackedBytes > maxUnpackedBytes)
      throw new ChangesetFileError(`its contents have more than ${maxUnpackedBytes / 2 ** 30} GiB`, {
        unknownFormat: false,
      });
    const changes = this.#prefix.complete ? unpacked : this.#takePrefix(unpacked);
    if (changes.length === 0) return;
    this.#hash.update(changes);
    this.#readers.onChanges?.(changes);
  }

  #takePrefix(unpacked: Uint8Array): Uint8Array {
    const { prefix, rest } = this.#prefix.take(unpacked);
    if (prefix !== undefined && prefix.length > 0) {
      this.#hash.update(prefix).update('\0');
      this.#readers.onPrefix?.(prefix);
    }
    return rest;
  }
}

/** Reads the prefix of the changes: its length (4 bytes, big-endian), and a string with a terminating zero. */
class PrefixReader {
  complete = false;
  readonly #pieces: Buffer[] = [];
  #length = 0;
  #end = Infinity;

  /** @returns the prefix without its terminating zero once it is complete, and the bytes after it */
  take(unpacked: Uint8Array): { prefix?: Buffer; rest: Uint8Array } {
    this.#pieces.push(Buffer.from(unpacked));
    this.#length += unpacked.length;
    if (this.#end === Infinity && this.#length >= 4) {
      this.#end = 4 + this.#joined().readUInt32BE(0);
      if (this.#end > maxPrefixBytes)
        throw new ChangesetFileError('the description of its schema changes is too long', { unknownFormat: false });
    }
    if (this.#length < this.#end) return { rest: Buffer.alloc(0) };
    this.complete = true;
    const bytes = this.#joined();
    this.#pieces.length = 0;
    const whole = bytes.subarray(4, this.#end);
    const zero = whole.indexOf(0);
    return { prefix: zero < 0 ? whole : whole.subarray(0, zero), rest: bytes.subarray(this.#end) };
  }

  #joined(): Buffer {
    return this.#pieces.length === 1 ? (this.#pieces[0] as Buffer) : Buffer.concat(this.#pieces);
  }
}

function notAChangeset(): ChangesetFileError {
  return new ChangesetFileError('the file is not a changeset of a known format', { unknownFormat: true });
}

function unpacking<T>(step: () => T): T {
  try {
    return step();
  } catch (error) {
    if (error instanceof DamagedStreamError)
      throw new ChangesetFileError(`the file is damaged (${error.message})`, { unknownFormat: false, cause: error });
    throw error;
  }
}
