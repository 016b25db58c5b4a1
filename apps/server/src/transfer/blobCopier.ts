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
  type StoredObject,
} from '../storage/blobStore.ts';
import type { BlobPlace, Blobs } from '../storage/blobs.ts';

/** What a file must be when it arrives. */
export interface Expected {
  /** What it is to people: `changeset 7`, `baseline`. */
  what: string;
  size: number;
  /** Hex. */
  sha256: string;
}

/** A file is not in its store as the database knows it; another attempt would find the same. */
export class DamagedSourceError extends FinalError {
  constructor(what: string, how: 'missing' | 'damaged') {
    super(`The file of ${what} is ${how} in the store that it is copied from.`);
    this.name = 'DamagedSourceError';
  }
}

/** How often a file that waits for its share of the budget tells that it still does. */
const waitingTellsMs = 1000;
/** After so many refusals in a row the service is not asked again. */
const refusalsUntilStreamed = 3;

/** Carries files from store to store, within this server's budget of bytes a second, and lets none pass that differs. */
export class BlobCopier {
  readonly #blobs: Blobs;
  readonly #bytesPerSecond: number;
  readonly #budget: RateLimiterQueue | undefined;
  /** By source and target: how often in a row a service refused to copy by itself. */
  readonly #refusals = new Map<string, number>();

  /** @param bytesPerSecond over all that this server carries; 0 is no limit */
  constructor(blobs: Blobs, bytesPerSecond: number) {
    this.#blobs = blobs;
    this.#bytesPerSecond = bytesPerSecond;
    this.#budget =
      bytesPerSecond === 0
        ? undefined
        : new RateLimiterQueue(new RateLimiterMemory({ points: bytesPerSecond, duration: 1 }));
  }

  /**
   * Copies a file, or a range of one, to a key of another store: a whole file by the service itself, where both stores are of
   * one, else through here. Its hash is that of the bytes that the target took; a copy that differs is tried once more and
   * never kept.
   * @param onBytes hears of bytes as they pass
   * @throws DamagedSourceError
   */
  async copy(
    from: BlobPlace,
    range: ByteRange | undefined,
    expected: Expected,
    to: BlobStore,
    key: string,
    options: CallOptions,
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
    options: CallOptions,
    onBytes: (bytes: number) => void,
  ): Promise<StoredObject | undefined> {
    const way = `${store} ${to.id}`;
    const refusals = this.#refusals.get(way) ?? 0;
    if (to.copyFrom === undefined || refusals === refusalsUntilStreamed) return undefined;
    let copied: StoredObject | undefined;
    try {
      copied = await to.copyFrom(this.#blobs.stores.get(store), sourceKey, key, size, options);
      this.#refusals.set(way, 0);
    } catch (error) {
      if (error instanceof NoSuchObjectError || error instanceof SizeMismatchError) throw error;
      options.signal?.throwIfAborted();
      // The service may not let one reach the other (rights, networks): this server can.
      this.#refusals.set(way, refusals + 1);
      return undefined;
    }
    // The budget is for what the stores do too: this file was copied ahead of its turn, the next one waits.
    if (copied === undefined) return undefined;
    await this.#afford(size, options);
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

  /** Whether a store has a file under a key, whole and right. What cannot be read is as good as not there. */
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
    return pipeline(source, new Metered((bytes) => this.#afford(bytes, options), onBytes), () => undefined);
  }

  /** Waits until so many bytes are within the budget. Waiting in line for it is no lack of progress. */
  async #afford(bytes: number, { signal, onProgress }: CallOptions): Promise<void> {
    if (this.#budget === undefined) return;
    const waiting = onProgress === undefined ? undefined : setInterval(onProgress, waitingTellsMs);
    try {
      // The queue gives out one second's budget at most at a time.
      for (let left = bytes; left > 0; left -= this.#bytesPerSecond) {
        signal?.throwIfAborted();
        await this.#budget.removeTokens(Math.min(left, this.#bytesPerSecond));
      }
    } finally {
      clearInterval(waiting);
    }
  }
}

/** Lets bytes pass when they can be afforded. */
class Metered extends Transform {
  readonly #afford: (bytes: number) => Promise<void>;
  readonly #onBytes: (bytes: number) => void;

  constructor(afford: (bytes: number) => Promise<void>, onBytes: (bytes: number) => void) {
    super();
    this.#afford = afford;
    this.#onBytes = onBytes;
  }

  override _transform(chunk: Buffer, _encoding: string, done: TransformCallback): void {
    this.#afford(chunk.length).then(() => {
      this.#onBytes(chunk.length);
      done(null, chunk);
    }, done);
  }
}
