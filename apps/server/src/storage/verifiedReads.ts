import { createHash } from 'node:crypto';
import { Transform, type Readable, type TransformCallback } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { FinalError } from '../operations/reasons.ts';
import { NoSuchObjectError } from './blobStore.ts';
import { intoFile } from './intoFile.ts';

/** A file that work needs is not in its store as the database knows it; another attempt would find the same. */
export class DamagedFileError extends FinalError {
  /** @param what of the file, to people: `changeset 7`, `the baseline` */
  constructor(what: string, how: 'missing' | 'damaged') {
    super(`The file of ${what} is ${how} in its store.`);
    this.name = 'DamagedFileError';
  }
}

/** Bytes from a store are not those that the database knows. */
export class ContentMismatchError extends Error {
  constructor() {
    super('the stored bytes have another size or hash than the database knows');
    this.name = 'ContentMismatchError';
  }
}

/**
 * Reads from a store what must not differ from what the database knows. One that differs is read once more, because a
 * transfer may have been at fault.
 * @throws DamagedFileError
 */
export async function readVerified<T>(what: string, read: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await read();
    } catch (error) {
      if (error instanceof NoSuchObjectError) throw new DamagedFileError(what, 'missing');
      if (!(error instanceof ContentMismatchError)) throw error;
      if (attempt === 2) throw new DamagedFileError(what, 'damaged');
    }
  }
}

/** Writes a file from a store to disk. @throws ContentMismatchError */
export async function writeVerified(
  source: Readable,
  expected: { size: number; sha256: string },
  target: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  await intoFile(target, 'w', (sink) => pipeline(source, new Verified(expected), sink, { signal }));
}

/** Passes bytes on and fails at the end when they are not the expected ones. */
class Verified extends Transform {
  readonly #expected: { size: number; sha256: string };
  readonly #hash = createHash('sha256');
  #size = 0;

  constructor(expected: { size: number; sha256: string }) {
    super();
    this.#expected = expected;
  }

  override _transform(chunk: Buffer, _encoding: string, done: TransformCallback): void {
    this.#size += chunk.length;
    this.#hash.update(chunk);
    done(null, chunk);
  }

  override _flush(done: TransformCallback): void {
    done(
      this.#size === this.#expected.size && this.#hash.digest('hex') === this.#expected.sha256
        ? null
        : new ContentMismatchError(),
    );
  }
}
