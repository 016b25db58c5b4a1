import { createHash, type Hash } from 'node:crypto';
import { finished, Transform, type Readable, type TransformCallback } from 'node:stream';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { continueIfExpected } from '../http/unreadBodies.ts';
import { ChecksumMismatchError } from './blobStore.ts';

/** How long an upload may bring nothing while the server waits for it. */
const longestSilenceMs = 120_000;

/** A client stopped sending in the middle of an upload. */
export class SilentUploadError extends Error {
  constructor() {
    super(`the upload brought nothing for ${longestSilenceMs / 1000} s`);
    this.name = 'SilentUploadError';
  }
}

/**
 * The body of a request, for whoever stores it. It fails when the connection is lost, when nothing comes for two minutes, and at its end
 * when it does not have the checksums that were sent with it. Whoever stops reading it leaves the connection as it is, so that the
 * client gets an answer.
 * @param md5s that the body must have, hex
 * @param onBytes hears of every chunk
 */
export function incomingBody(request: FastifyRequest, reply: FastifyReply, md5s: readonly string[], onBytes: () => void): Readable {
  const { raw } = request;
  const body = new IncomingBody(md5s, onBytes);
  // Nobody may be listening yet, or any more.
  body.on('error', () => undefined);
  finished(raw, { writable: false }, (error) => {
    if (error != null) body.destroy(error);
  });
  // A store that refuses the upload before it reads any of it leaves the body behind, with its timer.
  reply.raw.once('finish', () => body.destroy());
  continueIfExpected(raw, reply.raw);
  return raw.pipe(body);
}

class IncomingBody extends Transform {
  readonly #expected: readonly string[];
  readonly #md5: Hash | undefined;
  readonly #onBytes: () => void;
  #silence: NodeJS.Timeout;

  constructor(md5s: readonly string[], onBytes: () => void) {
    super();
    this.#expected = md5s;
    this.#md5 = md5s.length === 0 ? undefined : createHash('md5');
    this.#onBytes = onBytes;
    this.#silence = this.#wait();
  }

  override _transform(chunk: Buffer, _encoding: string, done: TransformCallback): void {
    this.#silence.refresh();
    this.#md5?.update(chunk);
    this.#onBytes();
    done(null, chunk);
  }

  override _flush(done: TransformCallback): void {
    clearTimeout(this.#silence);
    const md5 = this.#md5?.digest('hex');
    done(this.#expected.every((expected) => expected === md5) ? null : new ChecksumMismatchError());
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    clearTimeout(this.#silence);
    done(error);
  }

  /** The connection keeps the process alive; the wait for it need not. */
  #wait(): NodeJS.Timeout {
    return setTimeout(() => this.#onSilence(), longestSilenceMs).unref();
  }

  /** Only the client is held to bring something: a store that is slow has time limits of its own. */
  #onSilence(): void {
    if (this.writableLength > 0 || this.readableLength > 0) this.#silence = this.#wait();
    else this.destroy(new SilentUploadError());
  }
}
