import { createHash } from 'node:crypto';

/** A kept answer of a back end. */
export interface KeptAnswer {
  contentType: string;
  /** Compressed with gzip. */
  body: Buffer;
}

/**
 * A kept answer begins with the SHA-256 of the rest: one that was cut short, by a power failure for example, is never
 * served.
 */
const hashBytes = 32;

/** Name of a tile within its content. @param what what identifies the answer */
export function nameOfTile(what: readonly string[]): string {
  return createHash('sha256').update(JSON.stringify(what)).digest('hex');
}

export function pack({ contentType, body }: KeptAnswer): Buffer {
  const rest = Buffer.concat([Buffer.from(`${contentType}\n`), body]);
  return Buffer.concat([createHash('sha256').update(rest).digest(), rest]);
}

/** @returns undefined if the bytes are damaged */
export function unpack(bytes: Buffer): KeptAnswer | undefined {
  const rest = bytes.subarray(hashBytes);
  const end = rest.indexOf(0x0a);
  if (end < 0 || !createHash('sha256').update(rest).digest().equals(bytes.subarray(0, hashBytes))) return undefined;
  return { contentType: rest.toString('utf8', 0, end), body: rest.subarray(end + 1) };
}
