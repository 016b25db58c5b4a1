import { stat, statfs } from 'node:fs/promises';
import path from 'node:path';
import { outageOf } from '../../outages.ts';
import type { Writer } from './writerQueue.ts';

/** Number of 4 KiB pages that one step returns: a few milliseconds, so that other writers do not wait long. */
const stepPages = 256;
/** Number of free pages to keep for new data. */
const keptPages = 1024;
/** Largest file that the start rewrites so that it can return space; takes a few seconds at most. Larger ones need `offshoot compact`. */
const largestAtStart = 256 * 2 ** 20;

/** `auto_vacuum = incremental`: SQLite returns free pages only if the file was created, or rewritten, in this mode. */
const incremental = 2;

/** Thrown if the disk has too little free space to rewrite the database. */
export class NoRoomToCompactError extends Error {
  constructor(neededBytes: number) {
    super(`compacting needs ${Math.ceil(neededBytes / 2 ** 20)} MiB of free disk space for the time that it takes`);
    this.name = 'NoRoomToCompactError';
  }
}

async function numberOf(writer: Writer, pragma: 'auto_vacuum' | 'freelist_count'): Promise<number> {
  const { rows } = await writer.alone('alone', `pragma ${pragma}`);
  return (rows[0] as Record<string, number>)[pragma] ?? 0;
}

/** Whether the database can return space incrementally. */
async function returnsSpace(writer: Writer): Promise<boolean> {
  return (await numberOf(writer, 'auto_vacuum')) === incremental;
}

/**
 * Returns freed space to the disk, in small steps between which other transactions can run.
 * @returns number of bytes returned
 */
export async function returnFreeSpace(writer: Writer, signal: AbortSignal): Promise<number> {
  if (!(await returnsSpace(writer))) return 0;
  const before = await numberOf(writer, 'freelist_count');
  let left = before;
  while (left > keptPages && !signal.aborted) {
    await writer.alone('script', `pragma incremental_vacuum(${Math.min(stepPages, left - keptPages)})`, [], 'thread');
    const now = await numberOf(writer, 'freelist_count');
    // Deletions free pages as fast as this loop returns them, or none can be returned: the next run continues.
    if (now >= left) break;
    left = now;
  }
  return Math.max(0, before - left) * 4096;
}

/**
 * Rewrites the database without free pages, in the mode that returns space incrementally. It is safe to interrupt: SQLite writes a
 * copy and replaces the contents in one transaction.
 * @returns its size before and after, bytes
 * @throws NoRoomToCompactError
 */
export async function compact(writer: Writer, file: string): Promise<{ before: number; after: number }> {
  const { size: before } = await stat(file);
  const { bavail, bsize } = await statfs(path.dirname(file));
  // Space for the copy, and for the write-ahead log that it passes through.
  const needed = 2 * before + 16 * 2 ** 20;
  if (bavail * bsize < needed) throw new NoRoomToCompactError(needed);
  await writer.withoutLimits(() =>
    writer.alone('script', 'pragma auto_vacuum = incremental; vacuum; pragma wal_checkpoint(truncate)', [], 'thread'),
  );
  return { before, after: (await stat(file)).size };
}

/** Enables returning space for the database of an earlier version, if it is small and the disk has enough free space. */
export async function compactAtStart(writer: Writer, file: string): Promise<void> {
  if ((await returnsSpace(writer)) || (await stat(file)).size > largestAtStart) return;
  await compact(writer, file).catch((error: unknown) => {
    // On a full disk, the server starts without it.
    if (!(error instanceof NoRoomToCompactError) && outageOf(error) !== 'noSpace') throw error;
  });
}
