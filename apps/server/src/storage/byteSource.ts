import type { Readable } from 'node:stream';
import type { ByteRange, OpenObject } from './blobStore.ts';

/** Chunk size of streams, bytes. */
const pieceBytes = 64 * 1024;

/** A source of bytes that can be sent completely or as a range: `read` if the bytes are only available as a stream. */
export type ByteSource = {
  /** ETag of the bytes, without quotes. */
  etag: string;
  size: number;
  /** Headers of the response that differ from those of other files. */
  headers?: Readonly<Record<string, string>>;
} & (
  | { open(range: ByteRange | undefined): Promise<OpenObject> }
  | { open?: never; read(range: ByteRange | undefined): Promise<Readable> }
);

/** The chunks of a large buffer. */
export function* piecesOf(bytes: Buffer): Generator<Buffer> {
  for (let start = 0; start < bytes.length; start += pieceBytes) yield bytes.subarray(start, start + pieceBytes);
}
