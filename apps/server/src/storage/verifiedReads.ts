import { createHash } from 'node:crypto';
import { Transform, type Readable, type TransformCallback } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { FinalError } from '../operations/reasons.ts';
import { NoSuchObjectError } from './blobStore.ts';
import { intoFile } from './intoFile.ts';

/** A required file is missing from its store or differs from the database. Another attempt would fail the same way. */
export class DamagedFileError extends FinalError {
  /** @param what the file in words for users: `changeset 7`, `the baseline` */
  constructor(what: string, how: 'missing' | 'damaged') {
    super(`The file of ${what} is ${how} in its store.`);
    this.name = 'DamagedFileError';
  }
}

/** The bytes read from a store do not match the database. */
export class ContentMismatchError extends Error {
  constructor() {
    super('the stored bytes have another size or hash than the database records');
    this.name = 'ContentMismatchError';
  }
}

/**
 * Reads a file from a store and compares it with the database. If it differs, reads it once more, because the transfer
 * may have been faulty.
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

/** Passes bytes through and fails at the end if size or hash differ from the expected ones. */
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
