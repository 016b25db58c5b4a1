import type { ServerResponse } from 'node:http';
import { pipeline, Readable, Transform, type TransformCallback } from 'node:stream';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { OpenObject } from '../../storage/blobStore.ts';
import type { ByteSource } from '../../storage/byteSource.ts';
import type { Download } from './downloads.ts';
import { namesEntityTag, wantedRange } from './httpConditions.ts';
import { StorageError } from '../../storage/storageError.ts';

/** A stored file is shorter than the database says. */
class ShortFileError extends Error {
  constructor(expected: number, found: number) {
    super(`a stored file gave ${found} bytes where ${expected} were expected`);
    this.name = 'ShortFileError';
  }
}

/**
 * Sends a file, or the range of it that is asked for, under the conditions of the request (RFC 9110, 13.2.2). A file that turns
 * out to be too short ends the connection, so that the client does not take it for whole or wait for the rest.
 * @param download counts every chunk that is passed on
 */
export async function sendFile(
  file: ByteSource,
  request: FastifyRequest,
  reply: FastifyReply,
  download: Download,
): Promise<FastifyReply> {
  const etag = `"${file.etag}"`;
  const { 'if-match': ifMatch, 'if-none-match': ifNoneMatch } = request.headers;
  if (ifMatch !== undefined && !namesEntityTag(ifMatch, etag, false))
    throw new StorageError(412, 'ConditionNotMet', 'The blob is not the one that If-Match names.');
  reply.headers({ etag, 'accept-ranges': 'bytes', 'cache-control': 'private, max-age=0', ...file.headers });
  if (ifNoneMatch !== undefined && namesEntityTag(ifNoneMatch, etag, true)) return reply.code(304).send();

  // Rule of RFC 9110, 14.2: ranges are for GET alone.
  const range = request.method === 'GET' ? wantedRange(request.headers, etag, file.size) : undefined;
  if (range === 'unsatisfiable')
    throw new StorageError(416, 'InvalidRange', 'The range is not within the blob.', {
      'content-range': `bytes */${file.size}`,
    });
  const length = range === undefined ? file.size : range.end - range.start + 1;
  const body =
    request.method === 'HEAD' || length === 0
      ? Readable.from([])
      : file.open !== undefined
        ? new PouredBody(await file.open(range), length, request, download)
        : exactly(length, range !== undefined, await file.read(range), request, reply, download);
  if (range !== undefined) reply.code(206).header('content-range', `bytes ${range.start}-${range.end}/${file.size}`);
  reply.headers({ 'content-type': 'application/octet-stream', ...file.headers, 'content-length': length });
  // A stream in any case: for an empty body Fastify would set a length of 0 over the one that HEAD must tell.
  return reply.send(body);
}

/** Passes bytes on and fails, after a line in the log, when the store cannot give as many as announced. */
function exactly(
  length: number,
  isRange: boolean,
  source: Readable,
  request: FastifyRequest,
  reply: FastifyReply,
  download: Download,
): Readable {
  const counted = new Counted(length, isRange, download);
  download.sends(counted);
  const log = (error: Error): void =>
    request.log.error(
      { err: error, url: request.url.split('?', 1)[0] },
      'a file could not be sent to its end; its connection is closed',
    );
  // A client that disconnects is not a server error.
  let left = false;
  reply.raw.once('close', () => (left = true));
  source.once('error', (error) => left || log(error));
  pipeline(source, counted, (error) => {
    if (error instanceof ShortFileError) log(error);
  });
  return counted;
}

class Counted extends Transform {
  readonly #length: number;
  readonly #isRange: boolean;
  readonly #download: Download;
  #passed = 0;

  constructor(length: number, isRange: boolean, download: Download) {
    super();
    this.#length = length;
    this.#isRange = isRange;
    this.#download = download;
  }

  override _transform(chunk: Buffer, _encoding: string, done: TransformCallback): void {
    const left = this.#length - this.#passed;
    // Some S3 servers give more than a range that ends at byte 0.
    const bytes = this.#isRange ? chunk.subarray(0, left) : chunk;
    this.#passed += bytes.length;
    this.#download.passed(bytes.length);
    if (this.#passed > this.#length) done(new ShortFileError(this.#length, this.#passed));
    else done(null, bytes);
  }

  override _flush(done: TransformCallback): void {
    done(this.#passed === this.#length ? null : new ShortFileError(this.#length, this.#passed));
  }
}

/** Bytes to write at a time. A client at the minimum speed takes one such piece within the time after which it counts as stalled. */
const pieceBytes = 256 * 1024;

/**
 * A body that writes to the response itself, in memory that is used again, instead of passing through streams that would have to
 * keep its chunks.
 */
class PouredBody extends Readable {
  readonly #object: OpenObject;
  readonly #length: number;
  readonly #request: FastifyRequest;
  readonly #download: Download;
  #isPoured = false;

  constructor(object: OpenObject, length: number, request: FastifyRequest, download: Download) {
    super();
    this.#object = object;
    this.#length = length;
    this.#request = request;
    this.#download = download;
  }

  override pipe<T extends NodeJS.WritableStream>(response: T): T {
    this.#isPoured = true;
    this.#pour(response as unknown as ServerResponse).then(
      () => {
        response.end();
        this.push(null);
        this.resume();
      },
      (error: unknown) => this.destroy(error as Error),
    );
    return response;
  }

  override _read(): void {
    // The bytes do not pass through this stream.
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    if (this.#isPoured) return done(error);
    // The response ended before it began.
    this.#object.close().then(
      () => done(error),
      (failed: unknown) => done(error ?? (failed as Error)),
    );
  }

  async #pour(response: ServerResponse): Promise<void> {
    let passed = 0;
    let hasLeft = false;
    // The callback of a write need not be called after the connection is closed.
    const left = new Promise<never>((_resolve, reject) =>
      response.once('close', () => {
        hasLeft = true;
        reject(new ClientLeftError());
      }),
    );
    left.catch(() => undefined);
    try {
      await this.#object.pour(async (chunk) => {
        for (let start = 0; start < chunk.length; start += pieceBytes) {
          const piece = chunk.subarray(start, start + pieceBytes);
          passed += piece.length;
          if (passed > this.#length) throw new ShortFileError(this.#length, passed);
          this.#download.passed(piece.length);
          await Promise.race([write(response, piece), left]);
        }
      });
      if (passed < this.#length) throw new ShortFileError(this.#length, passed);
    } catch (error) {
      // A client that disconnects is not a server error.
      if (!hasLeft)
        this.#request.log.error(
          { err: error, url: this.#request.url.split('?', 1)[0] },
          'a file could not be sent to its end; its connection is closed',
        );
      throw error;
    }
  }
}

/** The connection of a response was closed before its end. */
class ClientLeftError extends Error {}

/** Writes to a response. Resolves when the operating system has the bytes. */
function write(response: ServerResponse, bytes: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    response.write(bytes, (error) => {
      if (error == null) resolve();
      else reject(error);
    });
  });
}
