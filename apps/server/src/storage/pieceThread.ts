/**
 * Writes and hashes the pieces of large files in a thread of its own. The memory of a piece is moved here and freed at once: it would
 * otherwise be left to the garbage collection of the main thread, which took as long as hashing.
 */
import { createHash, type Hash } from 'node:crypto';
import { writeSync, writevSync } from 'node:fs';
import { parentPort } from 'node:worker_threads';
import type { ThreadFault } from './fileThread.ts';

export type HashName = 'sha256' | 'md5';

/** One request of a file. All but the last are answered. */
export type PieceRequest =
  | {
      kind: 'write';
      file: number;
      /** Where the file is open. It must stay open until the answer. */
      fd: number;
      chunks: Uint8Array<ArrayBuffer>[];
      /** Hashes to compute. */
      hashes: readonly HashName[];
    }
  | { kind: 'digest'; file: number; hashes: readonly HashName[] }
  | { kind: 'forget'; file: number };

/** The hashes that were asked for, hex; empty for a piece. */
export type PieceReply = Partial<Record<HashName, string>>;

const files = new Map<number, Map<HashName, Hash>>();
const port = parentPort;
if (port === null) throw new Error('this module runs in a worker thread only');

port.on('message', (request: PieceRequest | 'close') => {
  if (request === 'close') {
    port.close();
    return;
  }
  if (request.kind === 'forget') {
    files.delete(request.file);
    return;
  }
  let reply: PieceReply | ThreadFault = {};
  try {
    const hashes = hashesOf(request);
    if (request.kind === 'write') {
      for (const hash of hashes.values()) for (const chunk of request.chunks) hash.update(chunk);
      write(request.fd, request.chunks);
      for (const chunk of request.chunks) chunk.buffer.transfer(0);
    } else reply = Object.fromEntries([...hashes].map(([name, hash]) => [name, hash.digest('hex')]));
  } catch (error) {
    const { message, code } = error as NodeJS.ErrnoException;
    reply = { error: { message, code } };
  }
  port.postMessage(reply);
});

function hashesOf({ file, hashes: names }: { file: number; hashes: readonly HashName[] }): Map<HashName, Hash> {
  const hashes = files.get(file) ?? new Map(names.map((name) => [name, createHash(name)]));
  files.set(file, hashes);
  return hashes;
}

/** Writes all chunks: a call may write less than it was given. */
function write(fd: number, chunks: readonly Uint8Array[]): void {
  let written = writevSync(fd, chunks);
  for (const chunk of chunks) {
    let from = Math.min(written, chunk.length);
    written -= from;
    while (from < chunk.length) from += writeSync(fd, chunk, from);
  }
}
