import { createHash, type Hash } from 'node:crypto';
import { DamagedStreamError, Lzma2Decoder } from './lzma2.ts';

/** Header of a changeset file: its own size, `ChangeSetLzma`, version 0x10 of the format, 2 for LZMA2; 22 bytes, little-endian. */
const header = Buffer.concat([Buffer.from([22, 0]), Buffer.from('ChangeSetLzma\0\0\0', 'latin1'), Buffer.from([0x10, 0, 2, 0])]);
/** Largest prefix that is taken, bytes: it holds the statements that change tables. */
const maxPrefixBytes = 256 * 1024 * 1024;

/** The file is none that iTwin.js writes, or is damaged: no id can be computed for it. */
export class ChangesetFileError extends Error {
  /** Whether the file does not even begin as a changeset of the one known format. */
  readonly unknownFormat: boolean;
  constructor(message: string, options: { unknownFormat: boolean; cause?: unknown }) {
    super(message, { cause: options.cause });
    this.name = 'ChangesetFileError';
    this.unknownFormat = options.unknownFormat;
  }
}

/**
 * Computes the id of a changeset file as iTwin.js does: SHA-1 over the parent's id (20 bytes, zeros for none), the prefix (a
 * C string that tells of schema changes, its end included) and the changes, both unpacked. The file may be packed differently and
 * still have the same id.
 */
export class ChangesetIdComputer {
  readonly #hash: Hash;
  readonly #onChanges: ((changes: Uint8Array) => void) | undefined;
  #head: Buffer = Buffer.alloc(0);
  #decoder: Lzma2Decoder | undefined;
  #prefix: PrefixReader = new PrefixReader();
  #unpackedBytes = 0;

  /**
   * @param parentId 40 hex digits, `""` for the first changeset
   * @param onChanges gets the changes, piece by piece; a piece is valid only during the call
   */
  constructor(parentId: string, onChanges?: (changes: Uint8Array) => void) {
    this.#hash = createHash('sha1').update(parentId === '' ? Buffer.alloc(20) : Buffer.from(parentId, 'hex'));
    this.#onChanges = onChanges;
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
    for (let piece = unpacking(() => pieces.next()); piece.done !== true; piece = unpacking(() => pieces.next())) this.#take(piece.value);
  }

  /** @returns the id, 40 hex digits. @throws ChangesetFileError when the file ended early */
  digest(): string {
    if (this.#decoder === undefined && this.#head.length === 0) throw notAChangeset();
    if (this.#decoder?.finished !== true || !this.#prefix.complete) throw new ChangesetFileError('the file ends early', { unknownFormat: false });
    return this.#hash.digest('hex');
  }

  #take(unpacked: Uint8Array): void {
    this.#unpackedBytes += unpacked.length;
    const changes = this.#prefix.complete ? unpacked : this.#prefix.take(unpacked, this.#hash);
    if (changes.length === 0) return;
    this.#hash.update(changes);
    this.#onChanges?.(changes);
  }
}

/** Reads what stands before the changes: its length (4 bytes, big-endian), and a string that ends with a zero byte. */
class PrefixReader {
  complete = false;
  #bytes: Buffer = Buffer.alloc(0);

  /** Hashes the prefix once it is there. @returns what follows it */
  take(unpacked: Uint8Array, hash: Hash): Uint8Array {
    this.#bytes = Buffer.concat([this.#bytes, unpacked]);
    if (this.#bytes.length < 4) return this.#bytes.subarray(0, 0);
    const end = 4 + this.#bytes.readUInt32BE(0);
    if (end > maxPrefixBytes) throw new ChangesetFileError('the description of its schema changes is too long', { unknownFormat: false });
    if (this.#bytes.length < end) return this.#bytes.subarray(0, 0);
    this.complete = true;
    const prefix = this.#bytes.subarray(4, end);
    const zero = prefix.indexOf(0);
    const text = zero < 0 ? prefix : prefix.subarray(0, zero);
    if (text.length > 0) hash.update(text).update('\0');
    const rest = this.#bytes.subarray(end);
    this.#bytes = Buffer.alloc(0);
    return rest;
  }
}

function notAChangeset(): ChangesetFileError {
  return new ChangesetFileError('the file is not a changeset of a known format', { unknownFormat: true });
}

function unpacking<T>(step: () => T): T {
  try {
    return step();
  } catch (error) {
    if (error instanceof DamagedStreamError) throw new ChangesetFileError(`the file is damaged (${error.message})`, { unknownFormat: false, cause: error });
    throw error;
  }
}
