import { Readable } from 'node:stream';
import type { CallOptions } from './blobStore.ts';

/**
 * A stream whose source must not stall: while somebody waits for bytes, each piece has to come within a time. A reader that
 * takes its time costs nothing. The source is destroyed with it.
 * @param timeoutMs longest wait for one piece, milliseconds
 * @param fault what the stream ends with when the wait is over
 * @param options.signal ends the stream with its reason
 * @param options.onProgress hears of each piece
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
    // A source that failed before it came here tells nobody again.
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
    // What the source says of its own end after this is nobody's concern, but must not end the process.
    this.#source.off('error', this.#onError).on('error', () => undefined);
    this.#source.off('close', this.#onClose);
    this.#source.destroy();
    done(error);
  }

  #pass(): void {
    if (!this.#wanted) return;
    const chunk = this.#source.read() as Buffer | null;
    if (chunk === null) {
      // One timer for the life of the stream, begun anew by each wait.
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
