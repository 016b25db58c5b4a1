import { createHash, type Hash } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import type { Readable } from 'node:stream';
import { SizeMismatchError, type CallOptions } from './blobStore.ts';
import { recheckEveryBytes, type DiskSpace } from './diskSpace.ts';
import type { FileThread } from './fileThread.ts';
import type { HashName, PieceReply, PieceRequest } from './pieceThread.ts';

/** Bytes to write at a time: chunks arrive in at most 64 KiB, and each write costs a trip to another thread. */
const batchBytes = 1 << 20;

interface WriterOptions extends CallOptions {
  /** Declared size, bytes. */
  declared: number;
  /** Hashes to compute. */
  hashes: readonly HashName[];
  space: DiskSpace | undefined;
  /** Hashes and writes in a thread, to which the memory of the chunks is moved. If absent, chunks are left as they are. */
  thread?: FileThread<PieceRequest, PieceReply> | undefined;
}

let lastFile = 0;

/** Writes bytes to a file, counts and hashes them, and fails as soon as they exceed the declared size. */
export class CheckedWriter {
  size = 0;
  readonly #file: FileHandle;
  readonly #options: WriterOptions;
  readonly #hashes: ReadonlyMap<HashName, Hash>;
  readonly #number = ++lastFile;
  readonly #thread: ReturnType<FileThread<PieceRequest, PieceReply>['open']> | undefined;
  #written = 0;
  #checkedAt = 0;

  /** Call `close` at the end, before the file is closed. */
  constructor(file: FileHandle, options: WriterOptions) {
    this.#file = file;
    this.#options = options;
    this.#thread = options.thread?.open();
    this.#hashes = new Map(
      this.#thread === undefined ? options.hashes.map((name) => [name, createHash(name)] as const) : [],
    );
  }

  /** Hashes and writes a body: while one batch is being written, the next one is received. */
  async writeAll(body: Readable): Promise<void> {
    let batch: Buffer[] = [];
    let bytes = 0;
    let writing = Promise.resolve();
    const writeBatch = async (): Promise<void> => {
      await writing;
      if (bytes === 0) return;
      writing = this.#write(batch, bytes);
      // It is awaited before the next batch, and at the end.
      writing.catch(() => undefined);
      [batch, bytes] = [[], 0];
    };
    try {
      for await (const chunk of body) {
        this.#options.signal?.throwIfAborted();
        const received = chunk as Buffer;
        this.size += received.length;
        if (this.size > this.#options.declared) throw new SizeMismatchError(this.#options.declared);
        for (const hash of this.#hashes.values()) hash.update(received);
        batch.push(received);
        bytes += received.length;
        if (bytes >= batchBytes) await writeBatch();
      }
      await writeBatch();
      await writing;
    } finally {
      // The file is closed afterwards, which must not happen during a write.
      await writing.catch(() => undefined);
    }
  }

  /** The hashes of everything that was written, hex. */
  async digests(): Promise<PieceReply> {
    const { hashes } = this.#options;
    if (this.#thread !== undefined) return this.#thread.ask({ kind: 'digest', file: this.#number, hashes });
    return Object.fromEntries([...this.#hashes].map(([name, hash]) => [name, hash.digest('hex')]));
  }

  close(): void {
    this.#thread?.close({ kind: 'forget', file: this.#number });
  }

  async #write(batch: readonly Buffer[], bytes: number): Promise<void> {
    if (this.#written - this.#checkedAt >= recheckEveryBytes) {
      this.#checkedAt = this.#written;
      await this.#options.space?.require(0, true);
    }
    if (this.#thread === undefined) {
      const { bytesWritten } = await this.#file.writev([...batch]);
      if (bytesWritten < bytes) await this.#file.writeFile(Buffer.concat(batch).subarray(bytesWritten));
    } else {
      const chunks = batch.map(movable);
      const { hashes } = this.#options;
      await this.#thread.ask(
        { kind: 'write', file: this.#number, fd: this.#file.fd, chunks, hashes },
        chunks.map(({ buffer }) => buffer),
      );
    }
    this.#written += bytes;
    this.#options.onProgress?.();
  }
}

/** A chunk with memory that can be moved to a thread: its own, or a copy if other data are in the same memory. */
function movable(chunk: Buffer): Uint8Array<ArrayBuffer> {
  const { buffer } = chunk;
  return buffer instanceof ArrayBuffer && buffer.byteLength === chunk.length
    ? new Uint8Array(buffer)
    : new Uint8Array(chunk);
}
