import { randomUUID } from 'node:crypto';
import { accessSync, chmodSync, constants, existsSync, mkdirSync, readdirSync, rmSync, statSync } from 'node:fs';
import path from 'node:path';

/** Thrown when the data folder cannot be created or written. */
export class DataFolderError extends Error {
  constructor(folder: string, reason: string, cause?: unknown) {
    super(
      `The data folder ${folder} cannot be used: ${reason}. Choose another folder with --data, or make this one writable.`,
      { cause },
    );
    this.name = 'DataFolderError';
  }
}

const reasons: Readonly<Record<string, string>> = {
  EACCES: 'this user has no permission to write to it',
  EPERM: 'this user has no permission to write to it',
  EROFS: 'it is on a read-only file system',
  ENOTDIR: 'a file is in its place, or in that of a parent folder',
  EEXIST: 'a file is in its place',
  ENOENT: 'it cannot be created',
  ENAMETOOLONG: 'its name is too long',
};

/** Names of the files and folders that the server keeps in its data folder, including the side files of SQLite. */
const own =
  /^(offshoot\.db|limits\.db|server\.lock)(-wal|-shm|-journal)?$|^(users|issuer|addresses)\.json$|^reserve$|^(blobs|work|tiles)$/;

/**
 * Creates the data folder if it is missing, and removes other users' access to the server's files in it.
 * @throws DataFolderError when it cannot be created or written
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

/** Whether a server with the embedded issuer has ever started on the folder. */
export function hasIssuer(folder: string): boolean {
  return existsSync(path.join(folder, 'issuer.json'));
}

/**
 * Removes other users' permissions on the server's files, whatever mode an earlier version, a restored copy or another
 * umask gave them. Other files in the same folder are not changed.
 */
function seal(folder: string): void {
  for (const name of readdirSync(folder)) {
    if (own.test(name)) restrict(path.join(folder, name), 0o700);
  }
  // A server that runs as root starts the iTwin.js process as another user, who must be able to traverse, but not list, these folders.
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
    // The file belongs to another user or was just deleted: the code that opens it next reports the error.
    if (!['EPERM', 'ENOENT', 'EROFS'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
  }
}

/** Age from which the temporary files of other processes count as abandoned, milliseconds. */
const abandonedMs = 24 * 3600 * 1000;

/**
 * Creates a folder for the temporary files of this process, and deletes abandoned ones: all of them if no other process runs
 * on the data folder, otherwise those that have not changed for a day.
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
  // A server that runs as root starts iTwin.js processes as other users, who must be able to traverse, but not list, this folder.
  if (process.getuid?.() === 0) chmodSync(own, 0o711);
  return own;
}
