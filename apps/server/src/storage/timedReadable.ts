import { Readable } from 'node:stream';
import type { CallOptions } from './blobStore.ts';

/**
 * A stream that fails if its source stalls: while the reader waits, each chunk must arrive within a timeout. A slow
 * reader does not count. Destroying the stream destroys the source.
 * @param timeoutMs maximum wait for one chunk, milliseconds
 * @param fault creates the error of a timeout
 * @param options.signal destroys the stream with its reason
 * @param options.onProgress called for each chunk
 */
export class TimedReadable extends Readable {
  readonly #source: Readable;
  readonly #timeoutMs: number;
  readonly #fault: () => Error;
  readonly #options: CallOptions;
  #timer: NodeJS.Timeout | undefined;
  #wanted = false;

  constructor(source: Readable, timeoutMs: number, fault: () => Error, options: CallOptions = {}) {
    super();
    this.#source = source;
    this.#timeoutMs = timeoutMs;
    this.#fault = fault;
    this.#options = options;
    source.on('readable', this.#onReadable);
    source.on('end', this.#onEnd);
    // A source that has already failed emits no further error event.
    if (source.errored !== null) this.destroy(source.errored);
    source.on('error', this.#onError);
    source.on('close', this.#onClose);
    if (options.signal?.aborted === true) this.#onAbort();
    options.signal?.addEventListener('abort', this.#onAbort, { once: true });
  }

  override _read(): void {
    this.#wanted = true;
    this.#pass();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    clearTimeout(this.#timer);
    this.#options.signal?.removeEventListener('abort', this.#onAbort);
    this.#source.off('readable', this.#onReadable);
    // Later errors of the source are irrelevant, but without a listener they would crash the process.
    this.#source.off('error', this.#onError).on('error', () => undefined);
    this.#source.off('close', this.#onClose);
    this.#source.destroy();
    done(error);
  }

  #pass(): void {
    if (!this.#wanted) return;
    const chunk = this.#source.read() as Buffer | null;
    if (chunk === null) {
      // One timer for the lifetime of the stream, restarted for each wait.
      if (this.#timer === undefined)
        this.#timer = setTimeout(() => this.#wanted && this.destroy(this.#fault()), this.#timeoutMs);
      else this.#timer.refresh();
      return;
    }
    this.#wanted = false;
    this.#options.onProgress?.();
    this.push(chunk);
  }

  readonly #onReadable = (): void => this.#pass();
  readonly #onEnd = (): void => void this.push(null);
  readonly #onError = (error: Error): void => void this.destroy(error);
  readonly #onClose = (): void => {
    if (!this.#source.readableEnded)
      this.destroy(Object.assign(new Error('the source ended early'), { code: 'ERR_STREAM_PREMATURE_CLOSE' }));
  };
  readonly #onAbort = (): void => void this.destroy(this.#options.signal?.reason as Error);
}
