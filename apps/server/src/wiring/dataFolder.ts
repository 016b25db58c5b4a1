import { randomUUID } from 'node:crypto';
import { accessSync, chmodSync, constants, existsSync, mkdirSync, readdirSync, rmSync, statSync } from 'node:fs';
import path from 'node:path';

/** Thrown when the data folder cannot be made or written. */
export class DataFolderError extends Error {
  constructor(folder: string, reason: string, cause?: unknown) {
    super(
      `The data folder ${folder} cannot be used: ${reason}. Name another one with --data, or see to it that this one can be written.`,
      { cause },
    );
    this.name = 'DataFolderError';
  }
}

const reasons: Readonly<Record<string, string>> = {
  EACCES: 'this user may not write it',
  EPERM: 'this user may not write it',
  EROFS: 'it is on a read-only file system',
  ENOTDIR: 'a file is in its place, or in that of a folder above it',
  EEXIST: 'a file is in its place',
  ENOENT: 'it cannot be made',
  ENAMETOOLONG: 'its name is too long',
};

/** What the server keeps in its data folder: files of these names, with what SQLite puts beside them, and folders. */
const own =
  /^(offshoot\.db|limits\.db|server\.lock)(-wal|-shm|-journal)?$|^(users|issuer|addresses)\.json$|^reserve$|^(blobs|work)$/;

/**
 * Makes the data folder where it is not there yet, and keeps everybody else out of what the server keeps in it.
 * @throws DataFolderError when it cannot be made or written
 */
export function openDataFolder(folder: string): void {
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    if (!statSync(folder).isDirectory()) throw Object.assign(new Error('not a folder'), { code: 'EEXIST' });
    accessSync(folder, constants.R_OK | constants.W_OK | constants.X_OK);
    seal(folder);
  } catch (error) {
    const reason = reasons[(error as NodeJS.ErrnoException).code ?? ''];
    if (reason === undefined) throw error;
    throw new DataFolderError(folder, reason, error);
  }
}

/** Whether a server has been started on a folder with an issuer of its own. */
export function hasIssuer(folder: string): boolean {
  return existsSync(path.join(folder, 'issuer.json'));
}

/**
 * Takes everybody else's rights on what the server keeps in its folder, whatever mode an earlier version, a restored copy or the
 * umask of that day gave it. Files of others in the same folder stay as they are.
 */
function seal(folder: string): void {
  for (const name of readdirSync(folder)) {
    if (own.test(name)) restrict(path.join(folder, name), 0o700);
  }
  // As root the server gives the iTwin.js process a user of its own, which must reach its working folder: it may pass, not look.
  if (process.getuid?.() !== 0) return;
  const work = path.join(folder, 'work');
  mkdirSync(work, { recursive: true, mode: 0o700 });
  for (const each of [folder, work]) chmodSync(each, (statSync(each).mode & 0o777) | 0o011);
}

function restrict(file: string, mask: number): void {
  try {
    const { mode } = statSync(file);
    if ((mode & 0o777 & ~mask) !== 0) chmodSync(file, mode & mask);
  } catch (error) {
    // Somebody else's file by one of these names, or gone: whoever opens it next says what is wrong.
    if (!['EPERM', 'ENOENT', 'EROFS'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
  }
}

/** Age from which files in work are nobody's any more, milliseconds. */
const abandonedMs = 24 * 3600 * 1000;

/**
 * A folder of this process's own for files in work. What others left behind goes: all of it where no other process runs on the
 * data folder, else what nothing has touched for a day.
 */
export function openWorkFolder(dataDir: string, company: 'alone' | 'beside others'): string {
  const all = path.join(dataDir, 'work');
  mkdirSync(all, { recursive: true, mode: 0o700 });
  for (const name of readdirSync(all)) {
    const left = path.join(all, name);
    if (company === 'alone' || statSync(left).mtimeMs < Date.now() - abandonedMs)
      rmSync(left, { recursive: true, force: true });
  }
  const own = path.join(all, randomUUID());
  mkdirSync(own, { mode: 0o700 });
  // As root the server gives each iTwin.js process a user of its own, which must reach its folder in this one: it may pass, not look.
  if (process.getuid?.() === 0) chmodSync(own, 0o711);
  return own;
}
