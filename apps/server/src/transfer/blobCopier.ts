import { createHash } from 'node:crypto';
import { pipeline, type Readable, Transform, type TransformCallback } from 'node:stream';
import { RateLimiterMemory, RateLimiterQueue } from 'rate-limiter-flexible';
import { FinalError } from '../operations/reasons.ts';
import {
  NoSuchObjectError,
  SizeMismatchError,
  StoreTimeoutError,
  type BlobStore,
  type ByteRange,
  type CallOptions,
  type CopyOptions,
  type StoredObject,
} from '../storage/blobStore.ts';
import type { BlobPlace, Blobs } from '../storage/blobs.ts';

/** What a copied file must be. */
export interface Expected {
  /** Its name in messages: `changeset 7`, `the baseline`. */
  what: string;
  size: number;
  /** Hex. */
  sha256: string;
}

/** A file in the source store differs from what the database recorded. Another attempt would find the same. */
export class DamagedSourceError extends FinalError {
  constructor(what: string, how: 'missing' | 'damaged') {
    super(`The file of ${what} is ${how} in the store that it is copied from.`);
    this.name = 'DamagedSourceError';
  }
}

/** How often a copy that waits for bandwidth reports progress, so that it does not count as stalled. */
const waitingTellsMs = 1000;
/** After this many consecutive refusals of a server-side copy, files are streamed through this server. */
const refusalsUntilStreamed = 3;

/** Copies files between stores within the bandwidth limit of this server, and verifies each of them. */
export class BlobCopier {
  readonly #blobs: Blobs;
  readonly #bytesPerSecond: number;
  readonly #limit: RateLimiterQueue | undefined;
  /** Consecutive refusals of a server-side copy, by source and target store. */
  readonly #refusals = new Map<string, number>();

  /** @param bytesPerSecond limit over all files that this server copies; 0 for none */
  constructor(blobs: Blobs, bytesPerSecond: number) {
    this.#blobs = blobs;
    this.#bytesPerSecond = bytesPerSecond;
    this.#limit =
      bytesPerSecond === 0
        ? undefined
        : new RateLimiterQueue(new RateLimiterMemory({ points: bytesPerSecond, duration: 1 }));
  }

  /**
   * Copies a file, or a range of one, to a key of another store. If both stores belong to one service, the service copies
   * whole files itself; all others are streamed through this server. The hash is that of the bytes that the target store
   * received. A copy that differs is deleted and tried once more.
   * @param onBytes called with the number of bytes as they are copied
   * @throws DamagedSourceError
   */
  async copy(
    from: BlobPlace,
    range: ByteRange | undefined,
    expected: Expected,
    to: BlobStore,
    key: string,
    options: CopyOptions,
    onBytes: (bytes: number) => void,
  ): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      try {
        const { sha256 } =
          (range === undefined ? await this.#copyWithin(from, expected.size, to, key, options, onBytes) : undefined) ??
          (await this.#stream(from, range, expected.size, to, key, options, onBytes));
        if (sha256 === expected.sha256) return;
        await to.delete(key, options);
      } catch (error) {
        options.signal?.throwIfAborted();
        if (error instanceof NoSuchObjectError) throw new DamagedSourceError(expected.what, 'missing');
        if (!(error instanceof SizeMismatchError)) throw error;
      }
      if (attempt === 2) throw new DamagedSourceError(expected.what, 'damaged');
    }
  }

  async #copyWithin(
    { store, key: sourceKey }: BlobPlace,
    size: number,
    to: BlobStore,
    key: string,
    options: CopyOptions,
    onBytes: (bytes: number) => void,
  ): Promise<StoredObject | undefined> {
    const route = `${store} ${to.id}`;
    const refusals = this.#refusals.get(route) ?? 0;
    if (to.copyFrom === undefined || refusals === refusalsUntilStreamed) return undefined;
    let copied: StoredObject | undefined;
    try {
      copied = await to.copyFrom(this.#blobs.stores.get(store), sourceKey, key, size, options);
      this.#refusals.set(route, 0);
    } catch (error) {
      if (error instanceof NoSuchObjectError || error instanceof SizeMismatchError) throw error;
      options.signal?.throwIfAborted();
      // Rights or networks may keep one store from reaching the other. This server reaches both.
      this.#refusals.set(route, refusals + 1);
      return undefined;
    }
    // Server-side copies count against the limit too. This file is copied already, so the next one waits.
    if (copied === undefined) return undefined;
    await this.#waitForBandwidth(size, options);
    onBytes(size);
    return copied;
  }

  async #stream(
    from: BlobPlace,
    range: ByteRange | undefined,
    size: number,
    to: BlobStore,
    key: string,
    options: CallOptions,
    onBytes: (bytes: number) => void,
  ): Promise<StoredObject> {
    const source = await this.#blobs.read(from, range, options);
    return to.put(key, this.#metered(source, options, onBytes), size, options);
  }

  /** Whether a store has the expected file under a key. A file that cannot be read counts as missing. */
  async has(store: BlobStore, key: string, { size, sha256 }: Expected, options: CallOptions): Promise<boolean> {
    const hash = createHash('sha256');
    let read = 0;
    try {
      for await (const chunk of await store.read(key, undefined, options)) {
        hash.update(chunk as Buffer);
        read += (chunk as Buffer).length;
      }
    } catch (error) {
      options.signal?.throwIfAborted();
      if (error instanceof StoreTimeoutError) throw error;
      return false;
    }
    return read === size && hash.digest('hex') === sha256;
  }

  #metered(source: Readable, options: CallOptions, onBytes: (bytes: number) => void): Readable {
    return pipeline(source, new Metered((bytes) => this.#waitForBandwidth(bytes, options), onBytes), () => undefined);
  }

  /** Waits until the bandwidth limit allows a number of bytes. Waiting for bandwidth counts as progress. */
  async #waitForBandwidth(bytes: number, { signal, onProgress }: CallOptions): Promise<void> {
    if (this.#limit === undefined) return;
    const waiting = onProgress === undefined ? undefined : setInterval(onProgress, waitingTellsMs);
    try {
      // The queue grants at most the bytes of one second at a time.
      for (let left = bytes; left > 0; left -= this.#bytesPerSecond) {
        signal?.throwIfAborted();
        await this.#limit.removeTokens(Math.min(left, this.#bytesPerSecond));
      }
    } finally {
      clearInterval(waiting);
    }
  }
}

/** A stream that passes bytes on as the bandwidth limit allows. */
class Metered extends Transform {
  readonly #waitForBandwidth: (bytes: number) => Promise<void>;
  readonly #onBytes: (bytes: number) => void;

  constructor(waitForBandwidth: (bytes: number) => Promise<void>, onBytes: (bytes: number) => void) {
    super();
    this.#waitForBandwidth = waitForBandwidth;
    this.#onBytes = onBytes;
  }

  override _transform(chunk: Buffer, _encoding: string, done: TransformCallback): void {
    this.#waitForBandwidth(chunk.length).then(() => {
      this.#onBytes(chunk.length);
      done(null, chunk);
    }, done);
  }
}
