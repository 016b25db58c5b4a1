import { setMaxListeners } from 'node:events';
import { IncomingMessage } from 'node:http';
import type { Readable } from 'node:stream';
import {
  StoreTimeoutError,
  type BlobStore,
  type ByteRange,
  type CallOptions,
  type CommitOptions,
  type DirectAccess,
  type DropOptions,
  type OpenObject,
  type PutOptions,
  type StoredObject,
  type TileObjects,
} from './blobStore.ts';
import { TimedReadable } from './timedReadable.ts';

/** When to abort calls of a store. */
export interface GuardOptions {
  /** Maximum time without progress, milliseconds. Large files may take longer while bytes are transferred. */
  timeoutMs: number;
  /** Aborts every call when the server shuts down. */
  ending?: AbortSignal | undefined;
}

/** A copy within a service reports no progress, so its timeout assumes this minimum speed. */
const slowestCopyBytesPerSecond = 8 * 1024 * 1024;

/**
 * A store whose calls always end. A call that makes no progress for `timeoutMs`, or whose signal is aborted, rejects
 * whether or not the store observes the signal. The store may still complete the call afterwards; because keys are used
 * only once, this leaves an orphan at worst.
 */
export class GuardedStore implements BlobStore {
  readonly id: string;
  readonly direct: DirectAccess | undefined;
  readonly tiles: TileObjects | undefined;
  readonly copyFrom?: NonNullable<BlobStore['copyFrom']>;
  readonly openObject?: NonNullable<BlobStore['openObject']>;
  readonly settle?: NonNullable<BlobStore['settle']>;
  readonly #store: BlobStore;
  readonly #timeoutMs: number;
  readonly #ending: AbortSignal | undefined;

  constructor(store: BlobStore, { timeoutMs, ending }: GuardOptions) {
    this.id = store.id;
    this.#store = store;
    this.#timeoutMs = timeoutMs;
    this.#ending = ending;
    // Every running call adds a listener.
    if (ending !== undefined) setMaxListeners(0, ending);
    this.direct = this.#guardDirect(store.direct);
    this.tiles = this.#guardTiles(store.tiles);
    const openObject = store.openObject?.bind(store);
    if (openObject !== undefined)
      this.openObject = (key, range, options) => this.#openObject((inner) => openObject(key, range, inner), options);
    const copyFrom = store.copyFrom?.bind(store);
    if (copyFrom !== undefined)
      this.copyFrom = (source, sourceKey, key, size, options) => {
        const from = source instanceof GuardedStore ? source.#store : source;
        const timeoutMs = this.#timeoutMs + (size / slowestCopyBytesPerSecond) * 1000;
        return this.#call(
          options,
          (inner) => copyFrom(from, sourceKey, key, size, { ...inner, settledLater: options?.settledLater }),
          { timeoutMs },
        );
      };
    const settle = store.settle?.bind(store);
    if (settle !== undefined) this.settle = (keys, options) => this.#call(options, (inner) => settle(keys, inner));
  }

  put(key: string, body: Readable, size: number, options?: PutOptions): Promise<StoredObject> {
    const { takesChunks } = options ?? {};
    return this.#call(options, (inner) => this.#store.put(key, body, size, { ...inner, takesChunks }), { body });
  }

  stageBlock(upload: string, blockId: string, body: Readable, size: number, options?: PutOptions): Promise<void> {
    const { takesChunks } = options ?? {};
    return this.#call(
      options,
      (inner) => this.#store.stageBlock(upload, blockId, body, size, { ...inner, takesChunks }),
      { body },
    );
  }

  stagedBlocks(upload: string, options?: CallOptions): Promise<ReadonlyMap<string, number>> {
    return this.#call(options, (inner) => this.#store.stagedBlocks(upload, inner));
  }

  readBlock(upload: string, blockId: string, options?: CallOptions): Promise<Readable> {
    return this.#stream(options, (inner) => this.#store.readBlock(upload, blockId, inner));
  }

  commitBlocks(
    upload: string,
    key: string,
    blockIds: readonly string[],
    size: number,
    options?: CommitOptions,
  ): Promise<StoredObject> {
    return this.#call(options, (inner) =>
      this.#store.commitBlocks(upload, key, blockIds, size, { ...inner, md5: options?.md5 }),
    );
  }

  dropBlocks(upload: string, options?: CallOptions): Promise<void> {
    return this.#call(options, (inner) => this.#store.dropBlocks(upload, inner));
  }

  read(key: string, range?: ByteRange, options?: CallOptions): Promise<Readable> {
    return this.#stream(options, (inner) => this.#store.read(key, range, inner));
  }

  async #openObject(
    open: (options: CallOptions) => Promise<OpenObject>,
    options: CallOptions = {},
  ): Promise<OpenObject> {
    const signals = [options.signal, this.#ending].filter((signal) => signal !== undefined);
    const object = await this.#call(
      { ...options, signal: undefined },
      async (inner) => {
        // Without the signal of this call, which ends with it.
        const opened = await open({});
        if (inner.signal?.aborted === true) await opened.close();
        inner.signal?.throwIfAborted();
        return opened;
      },
      { signals },
    );
    return {
      close: () => object.close(),
      pour: (sink) => {
        // A slow sink does not count as a store that makes no progress.
        let isSinking = false;
        return this.#call(
          { ...options, signal: undefined },
          (inner) =>
            object.pour(async (chunk) => {
              inner.signal?.throwIfAborted();
              isSinking = true;
              try {
                await sink(chunk);
              } finally {
                isSinking = false;
                inner.onProgress?.();
              }
            }),
          { signals, waitsForOthers: () => isSinking },
        );
      },
    };
  }

  async #stream(options: CallOptions = {}, open: (options: CallOptions) => Promise<Readable>): Promise<Readable> {
    const signals = [options.signal, this.#ending].filter((signal) => signal !== undefined);
    // The signal remains in effect after the call: it also ends the stream, and with it the transfer from the service.
    const stream = await this.#call({ ...options, signal: undefined }, (inner) => this.#open(open, inner), { signals });
    const signal = signals.length > 1 ? AbortSignal.any(signals) : signals[0];
    return new TimedReadable(stream, this.#timeoutMs, () => this.#timeout(), {
      signal,
      onProgress: options.onProgress,
    });
  }

  /** Closes a stream immediately if the call was aborted before it opened. */
  async #open(open: (options: CallOptions) => Promise<Readable>, options: CallOptions): Promise<Readable> {
    const stream = await open(options);
    if (options.signal?.aborted === true) stream.on('error', () => undefined).destroy();
    options.signal?.throwIfAborted();
    return stream;
  }

  check(options?: CallOptions): Promise<void> {
    return this.#call(options, (inner) => this.#store.check(inner));
  }

  claim(installation: string, options?: CallOptions): Promise<string> {
    return this.#call(options, (inner) => this.#store.claim(installation, inner));
  }

  delete(key: string, options?: CallOptions): Promise<void> {
    return this.#call(options, (inner) => this.#store.delete(key, inner));
  }

  list(options?: CallOptions): AsyncIterable<{ key: string; size: number; modifiedAt: number }> {
    return this.#entries(options, (inner) => this.#store.list(inner));
  }

  async *#entries<T>(
    options: CallOptions | undefined,
    open: (options: CallOptions) => AsyncIterable<T>,
  ): AsyncIterable<T> {
    const abort = new AbortController();
    const entries = open({ ...options, signal: abort.signal })[Symbol.asyncIterator]();
    try {
      for (;;) {
        const next = await this.#call(options, () => entries.next(), { abort });
        if (next.done === true) return;
        yield next.value;
      }
    } finally {
      abort.abort();
    }
  }

  dropUnfinished(before: number, options?: DropOptions): Promise<void> {
    return this.#call(options, (inner) =>
      this.#store.dropUnfinished(before, { ...inner, isAwaited: options?.isAwaited }),
    );
  }

  #guardDirect(direct: DirectAccess | undefined): DirectAccess | undefined {
    if (direct === undefined) return undefined;
    const { uploads } = direct;
    return {
      downloads: direct.downloads,
      pages: direct.pages,
      downloadLink: (key, fileName, expires) =>
        this.#call(undefined, () => direct.downloadLink(key, fileName, expires)),
      ...(uploads !== undefined && {
        uploads: {
          link: (upload, expires) => this.#call(undefined, () => uploads.link(upload, expires)),
          finalize: (upload, key, size, options) =>
            this.#call(options, (inner) => uploads.finalize(upload, key, size, inner), {
              timeoutMs: this.#timeoutMs + (size / slowestCopyBytesPerSecond) * 1000,
            }),
          uploaded: (options) => this.#entries(options, (inner) => uploads.uploaded(inner)),
          drop: (upload, options) => this.#call(options, (inner) => uploads.drop(upload, inner)),
        },
      }),
    };
  }

  #guardTiles(tiles: TileObjects | undefined): TileObjects | undefined {
    if (tiles === undefined) return undefined;
    return {
      read: (content, name, options) => this.#stream(options, (inner) => tiles.read(content, name, inner)),
      put: (content, name, bytes, options) => this.#call(options, (inner) => tiles.put(content, name, bytes, inner)),
      delete: (content, name, options) => this.#call(options, (inner) => tiles.delete(content, name, inner)),
      contents: (options) => this.#entries(options, (inner) => tiles.contents(inner)),
      list: (content, options) => this.#entries(options, (inner) => tiles.list(content, inner)),
    };
  }

  #timeout(): StoreTimeoutError {
    return new StoreTimeoutError(this.id, this.#timeoutMs / 1000);
  }

  /**
   * Runs one call with timeout and signals.
   * @param how.waitsForOthers whether the call waits for something other than the store, so that the timeout does not apply
   * @param how.body the stream that the store reads; the timeout does not apply while the store waits for its data
   */
  #call<T>(
    { signal, onProgress }: CallOptions = {},
    work: (options: CallOptions) => Promise<T>,
    how: {
      body?: Readable;
      timeoutMs?: number;
      signals?: readonly AbortSignal[];
      abort?: AbortController;
      waitsForOthers?: () => boolean;
    } = {},
  ): Promise<T> {
    const { body, timeoutMs = this.#timeoutMs, abort = new AbortController() } = how;
    const signals = how.signals ?? [signal, this.#ending].filter((each) => each !== undefined);
    return new Promise<T>((resolve, reject) => {
      const end = (reason: Error): void => {
        settle();
        abort.abort(reason);
        // An incoming request is not destroyed, because it still has to be answered.
        if (!(body instanceof IncomingMessage)) body?.on('error', () => undefined).destroy(reason);
        reject(reason);
      };
      const timer = setTimeout(() => {
        // The store has started reading and the buffer is empty, so the store waits for the body.
        const waitsForBody =
          body !== undefined &&
          body.readableDidRead &&
          body.readableLength === 0 &&
          !body.readableEnded &&
          !body.destroyed;
        if (waitsForBody || how.waitsForOthers?.() === true) timer.refresh();
        else end(this.#timeout());
      }, timeoutMs);
      const onAbort = (event: Event): void => end((event.target as AbortSignal).reason as Error);
      const settle = (): void => {
        clearTimeout(timer);
        for (const each of signals) each.removeEventListener('abort', onAbort);
      };
      for (const each of signals) {
        if (each.aborted) return end(each.reason as Error);
        each.addEventListener('abort', onAbort);
      }
      const passed = (): void => {
        timer.refresh();
        onProgress?.();
      };
      (async () => work({ signal: abort.signal, onProgress: passed }))().then(
        (value) => {
          settle();
          resolve(value);
        },
        (error: unknown) => {
          settle();
          reject(error instanceof Error ? error : new Error('a call of the store failed', { cause: error }));
        },
      );
    });
  }
}
