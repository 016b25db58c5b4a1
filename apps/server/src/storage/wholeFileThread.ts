/**
 * Writes small files durably in a thread of its own: one message for each file instead of five calls of the thread pool one after
 * another, each of which wakes a thread and then the main thread.
 */
import { hash } from 'node:crypto';
import { closeSync, fsyncSync, openSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { parentPort } from 'node:worker_threads';
import { makeFolderSync, syncFolderSync } from './durable.ts';
import type { ThreadFault } from './fileThread.ts';

/** A file that is written to `aside` and then renamed to `target`. */
export interface WholeFile {
  bytes: Uint8Array<ArrayBuffer>;
  aside: string;
  target: string;
}

export interface WholeFileReply {
  /** Hex. */
  sha256: string;
}

const port = parentPort;
if (port === null) throw new Error('this module runs in a worker thread only');

port.on('message', (file: WholeFile | 'close') => {
  if (file === 'close') {
    port.close();
    return;
  }
  let reply: WholeFileReply | ThreadFault;
  try {
    reply = { sha256: write(file) };
  } catch (error) {
    const { message, code } = error as NodeJS.ErrnoException;
    reply = { error: { message, code } };
  }
  port.postMessage(reply);
});

/** @returns the SHA-256 of the bytes, hex */
function write({ bytes, aside, target }: WholeFile): string {
  const opened = openSync(aside, 'wx', 0o600);
  try {
    try {
      writeFileSync(opened, bytes);
      fsyncSync(opened);
    } finally {
      closeSync(opened);
    }
    renameInto(aside, target);
  } catch (error) {
    rmSync(aside, { force: true });
    throw error;
  }
  syncFolderSync(path.dirname(target));
  return hash('sha256', bytes, 'hex');
}

/** Renames a file, and makes the target folder if it does not exist. */
function renameInto(from: string, to: string): void {
  try {
    renameSync(from, to);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    makeFolderSync(path.dirname(to));
    renameSync(from, to);
  }
}
