import { createHash, type Hash } from 'node:crypto';
import { finished, Transform, type Readable, type TransformCallback } from 'node:stream';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { continueIfExpected } from '../../http/unreadBodies.ts';
import { ChecksumMismatchError } from '../../storage/blobStore.ts';

/** What an upload has to bring in the time that it may stall, bytes: a byte now and then must not hold a connection for ever. */
const progressBytes = 65_536;

/** The client stopped sending in the middle of an upload, or sends too slowly. */
export class StalledUploadError extends Error {
  constructor(stallMs: number) {
    super(`the upload brought less than ${progressBytes} bytes in ${stallMs / 1000} s`);
    this.name = 'StalledUploadError';
  }
}

/** Options for reading the body of a request. */
export interface BodyOptions {
  request: FastifyRequest;
  reply: FastifyReply;
  /** Expected checksum of the body, hex. */
  md5s: readonly string[];
  /** Longest time without progress while the server waits for the client, milliseconds. */
  stallMs: number;
  /** Called with every chunk. */
  onBytes?: (chunk: Buffer) => void;
}

/**
 * The body of an upload. It fails if the connection is lost, if it stalls, and at its end if it does not match the checksums that were
 * sent with it. A reader that stops early leaves the connection open, so that the client receives a response.
 */
export function incomingBody({ request, reply, md5s, stallMs, onBytes }: BodyOptions): Readable {
  const { raw } = request;
  const body = new IncomingBody(md5s, stallMs, onBytes);
  // There may be no listener yet, or none any more.
  body.on('error', () => undefined);
  finished(raw, { writable: false }, (error) => {
    if (error != null) body.destroy(error);
  });
  // A store that refuses the upload before reading it never consumes the body, so the timer must be stopped here.
  reply.raw.once('finish', () => body.destroy());
  continueIfExpected(raw, reply.raw);
  return raw.pipe(body);
}

class IncomingBody extends Transform {
  readonly #expected: readonly string[];
  readonly #md5: Hash | undefined;
  readonly #stallMs: number;
  readonly #onBytes: ((chunk: Buffer) => void) | undefined;
  #stall: NodeJS.Timeout;
  /** Bytes since the wait began anew. */
  #progress = 0;

  constructor(md5s: readonly string[], stallMs: number, onBytes: ((chunk: Buffer) => void) | undefined) {
    super();
    this.#stallMs = stallMs;
    this.#expected = md5s;
    this.#md5 = md5s.length === 0 ? undefined : createHash('md5');
    this.#onBytes = onBytes;
    this.#stall = this.#wait();
  }

  override _transform(chunk: Buffer, _encoding: string, done: TransformCallback): void {
    this.#progress += chunk.length;
    if (this.#progress >= progressBytes) {
      this.#progress = 0;
      this.#stall.refresh();
    }
    this.#md5?.update(chunk);
    this.#onBytes?.(chunk);
    done(null, chunk);
  }

  override _flush(done: TransformCallback): void {
    clearTimeout(this.#stall);
    const md5 = this.#md5?.digest('hex');
    done(this.#expected.every((expected) => expected === md5) ? null : new ChecksumMismatchError());
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    clearTimeout(this.#stall);
    done(error);
  }

  /** The connection keeps the process alive; the wait for it need not. */
  #wait(): NodeJS.Timeout {
    return setTimeout(() => this.#onStall(), this.#stallMs).unref();
  }

  /** Applies to the client only: a slow store has its own time limits. */
  #onStall(): void {
    if (this.writableLength > 0 || this.readableLength > 0) this.#stall = this.#wait();
    else this.destroy(new StalledUploadError(this.#stallMs));
  }
}
