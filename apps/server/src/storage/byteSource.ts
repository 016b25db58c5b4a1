import { Readable } from 'node:stream';
import type { ByteRange, OpenObject } from './blobStore.ts';

/** Chunk size of responses, bytes. The progress of a download is measured in chunks. */
const pieceBytes = 64 * 1024;

/** A source of bytes that can be sent completely or as a range. */
export interface ByteSource {
  /** ETag of the bytes, without quotes. */
  etag: string;
  size: number;
  /** Headers of the response that differ from those of other files. */
  headers?: Readonly<Record<string, string>>;
  read(range: ByteRange | undefined): Readable | Promise<Readable>;
  /** Absent if the bytes are only available as a stream. */
  open?: ((range?: ByteRange) => Promise<OpenObject>) | undefined;
}

/** A stream of the bytes in a buffer, in chunks. */
export function readInPieces(bytes: Buffer): Readable {
  return Readable.from(piecesOf(bytes), { objectMode: false });
}

/** The chunks of a large buffer. */
export function* piecesOf(bytes: Buffer): Generator<Buffer> {
  for (let start = 0; start < bytes.length; start += pieceBytes) yield bytes.subarray(start, start + pieceBytes);
}
