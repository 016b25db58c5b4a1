/** Files that the build makes, which the server sends to browsers: the guide and the console. */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';

/** Types by file name extension; other files are not sent. */
export const contentTypes: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.json': 'application/json; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
  '.md': 'text/plain; charset=utf-8',
  '.txt': 'text/plain; charset=utf-8',
};

/** Whether a path stays in its folder: no part begins with a dot. */
export const isInside = (place: string): boolean => /^(?:\w[\w.-]*\/)*\w[\w.-]*$/.test(place);

export function etagOf(body: Buffer | string): string {
  return `"${createHash('sha256').update(body).digest('base64url')}"`;
}

/** @returns undefined if there is no such file */
export async function contentsOf(file: string): Promise<Buffer | undefined> {
  try {
    return await readFile(file);
  } catch (error) {
    if (['ENOENT', 'ENOTDIR', 'EISDIR', 'ENAMETOOLONG'].includes((error as NodeJS.ErrnoException).code ?? ''))
      return undefined;
    throw error;
  }
}
