import { Readable } from 'node:stream';
import type { ByteRange } from './blobStore.ts';

/** Bytes that are handed to a response at a time: what a client takes is told by them. */
const pieceBytes = 64 * 1024;

/** Bytes that can be sent, whole or in part. */
export interface ByteSource {
  /** Of the bytes, without quotes. */
  etag: string;
  size: number;
  read(range: ByteRange | undefined): Readable | Promise<Readable>;
}

/** Bytes of the memory as a stream, piece by piece. */
export function readInPieces(bytes: Buffer): Readable {
  return Readable.from(piecesOf(bytes), { objectMode: false });
}

/** A large buffer, piece by piece. */
export function* piecesOf(bytes: Buffer): Generator<Buffer> {
  for (let start = 0; start < bytes.length; start += pieceBytes) yield bytes.subarray(start, start + pieceBytes);
}
