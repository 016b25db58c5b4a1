/** Files and folders that are there after a power cut once these functions have returned. */
import { randomUUID } from 'node:crypto';
import { closeSync, existsSync, fsyncSync, linkSync, openSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { mkdir, open } from 'node:fs/promises';
import path from 'node:path';

/** Makes a name in a folder survive: a synced file whose folder is not synced may be gone. */
export async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Makes a folder, and those above it that are missing, all of them durable. */
export async function makeFolder(folder: string): Promise<void> {
  const highest = await mkdir(folder, { recursive: true, mode: 0o700 });
  if (highest === undefined) return;
  // Each new folder is a name in the one above it.
  for (let made = folder; ; made = path.dirname(made)) {
    await syncFolder(path.dirname(made));
    if (path.resolve(made) === path.resolve(highest)) return;
  }
}

/**
 * Writes a small file whole: whoever looks finds all of it or what was there before, also after a power cut. Readable by its
 * owner alone.
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

/** The same for a file that nobody has made yet. @returns false when it is there already; that one stays */
export function createFileDurably(file: string, content: string | Uint8Array): boolean {
  if (existsSync(file)) return false;
  const temporary = writeAside(file, content);
  try {
    // A link, unlike a rename, never replaces what another process has made in the meantime.
    linkSync(temporary, file);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST') return false;
    if (code !== 'EPERM' && code !== 'ENOTSUP' && code !== 'ENOSYS' && code !== 'EOPNOTSUPP') throw error;
    // A file system without links.
    renameSync(temporary, file);
  } finally {
    rmSync(temporary, { force: true });
  }
  syncFolderSync(path.dirname(file));
  return true;
}

/** Makes renames and files in a folder survive. */
export function syncFolderSync(folder: string): void {
  syncPath(folder);
}

/** Makes the bytes of a file survive that something else has written. */
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
