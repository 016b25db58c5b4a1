/** Writes files and folders that survive a power cut once the functions have returned. */
import { randomUUID } from 'node:crypto';
import {
  closeSync,
  existsSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { mkdir, open } from 'node:fs/promises';
import path from 'node:path';

/** Makes the entries of a folder durable. A synced file can be lost if its folder is not synced. */
export async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Creates a folder and its missing parents durably. */
export async function makeFolder(folder: string): Promise<void> {
  const highest = await mkdir(folder, { recursive: true, mode: 0o700 });
  if (highest === undefined) return;
  // Each new folder is an entry of its parent, which must be synced.
  for (let made = folder; ; made = path.dirname(made)) {
    await syncFolder(path.dirname(made));
    if (path.resolve(made) === path.resolve(highest)) return;
  }
}

/** Like `makeFolder`, for threads that may wait. */
export function makeFolderSync(folder: string): void {
  const highest = mkdirSync(folder, { recursive: true, mode: 0o700 });
  if (highest === undefined) return;
  for (let made = folder; ; made = path.dirname(made)) {
    syncFolderSync(path.dirname(made));
    if (path.resolve(made) === path.resolve(highest)) return;
  }
}

/**
 * Writes a small file atomically: readers find the complete new content or the previous one, also after a power cut.
 * Only the owner can read the file.
 */
export function writeFileDurably(file: string, content: string | Uint8Array): void {
  const temporary = writeAside(file, content);
  try {
    renameSync(temporary, file);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
  syncFolderSync(path.dirname(file));
}

/** Creates a small file in the same way. @returns false if it already exists; it is not changed then */
export function createFileDurably(file: string, content: string | Uint8Array): boolean {
  if (existsSync(file)) return false;
  const temporary = writeAside(file, content);
  try {
    // Unlike a rename, a link never replaces a file that another process has created in the meantime.
    linkSync(temporary, file);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST') return false;
    if (code !== 'EPERM' && code !== 'ENOTSUP' && code !== 'ENOSYS' && code !== 'EOPNOTSUPP') throw error;
    // The file system does not support links.
    renameSync(temporary, file);
  } finally {
    rmSync(temporary, { force: true });
  }
  syncFolderSync(path.dirname(file));
  return true;
}

/** Makes the entries of a folder durable. */
export function syncFolderSync(folder: string): void {
  syncPath(folder);
}

/** Makes a file durable that was written by other code, such as SQLite. */
export function syncFileSync(file: string): void {
  syncPath(file);
}

function syncPath(name: string): void {
  const opened = openSync(name, 'r');
  try {
    fsyncSync(opened);
  } finally {
    closeSync(opened);
  }
}

function writeAside(file: string, content: string | Uint8Array): string {
  const temporary = `${file}.${randomUUID()}.tmp`;
  try {
    writeFileSync(temporary, content, { mode: 0o600, flag: 'wx', flush: true });
    return temporary;
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
}
