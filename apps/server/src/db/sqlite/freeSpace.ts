import { stat, statfs } from 'node:fs/promises';
import path from 'node:path';
import { outageOf } from '../../outages.ts';
import type { Writer } from './writerQueue.ts';

/** Pages (of 4 KiB) that one step returns: some milliseconds, so that nobody waits for long. */
const stepPages = 256;
/** Free pages that stay for what comes next. */
const keptPages = 1024;
/** Largest file that is rewritten at a start to return space from then on; that takes a few seconds at most. Larger ones wait for a command. */
const largestAtStart = 256 * 2 ** 20;

/** SQLite: returns what it has freed only when the file was made so, or rewritten since. */
const incremental = 2;

/** The disk has too little room to rewrite the database. */
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

/** Whether the database gives space back step by step. */
async function returnsSpace(writer: Writer): Promise<boolean> {
  return (await numberOf(writer, 'auto_vacuum')) === incremental;
}

/**
 * Gives space that deletions have freed back to the disk, in small steps that others write between.
 * @returns bytes
 */
export async function returnFreeSpace(writer: Writer, signal: AbortSignal): Promise<number> {
  if (!(await returnsSpace(writer))) return 0;
  const before = await numberOf(writer, 'freelist_count');
  let left = before;
  while (left > keptPages && !signal.aborted) {
    await writer.alone('script', `pragma incremental_vacuum(${Math.min(stepPages, left - keptPages)})`);
    const now = await numberOf(writer, 'freelist_count');
    // Somebody else frees as fast as this returns, or nothing can be returned: the next run goes on.
    if (now >= left) break;
    left = now;
  }
  return Math.max(0, before - left) * 4096;
}

/**
 * Rewrites the database: without gaps, and so that it returns space by itself from then on. Safe at any moment: SQLite
 * rewrites it beside and takes it over in one transaction.
 * @returns its size before and after, bytes
 * @throws NoRoomToCompactError
 */
export async function compact(writer: Writer, file: string): Promise<{ before: number; after: number }> {
  const { size: before } = await stat(file);
  const { bavail, bsize } = await statfs(path.dirname(file));
  // The copy, and the write-ahead log that it goes through.
  const needed = 2 * before + 16 * 2 ** 20;
  if (bavail * bsize < needed) throw new NoRoomToCompactError(needed);
  await writer.withoutLimits(() =>
    writer.alone('script', 'pragma auto_vacuum = incremental; vacuum; pragma wal_checkpoint(truncate)'),
  );
  return { before, after: (await stat(file)).size };
}

/** Prepares the database of an earlier version for returning space, if that is quickly done and there is room. */
export async function compactAtStart(writer: Writer, file: string): Promise<void> {
  if ((await returnsSpace(writer)) || (await stat(file)).size > largestAtStart) return;
  await compact(writer, file).catch((error: unknown) => {
    // On a full disk it starts as it is.
    if (!(error instanceof NoRoomToCompactError) && outageOf(error) !== 'noSpace') throw error;
  });
}
