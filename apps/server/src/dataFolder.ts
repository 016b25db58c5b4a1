import { accessSync, constants, existsSync, mkdirSync, statSync } from 'node:fs';
import path from 'node:path';

/** Thrown when the data folder cannot be made or written. */
export class DataFolderError extends Error {
  constructor(folder: string, reason: string, cause?: unknown) {
    super(`The data folder ${folder} cannot be used: ${reason}. Name another one with --data, or see to it that this one can be written.`, { cause });
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

/** Makes the data folder where it is not there yet. @throws DataFolderError when it cannot be made or written */
export function openDataFolder(folder: string): void {
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    if (!statSync(folder).isDirectory()) throw Object.assign(new Error('not a folder'), { code: 'EEXIST' });
    accessSync(folder, constants.R_OK | constants.W_OK | constants.X_OK);
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
