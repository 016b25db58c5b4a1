/** Files that the build makes, which the server sends to browsers: the guide, the console and the viewer. */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import type { FastifyReply, FastifyRequest } from 'fastify';

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
  '.woff2': 'font/woff2',
  '.woff': 'font/woff',
  '.ttf': 'font/ttf',
  '.cur': 'image/x-icon',
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

/** Compressed variants that the build puts beside a file, the smaller first. */
const encodings = [
  { name: 'br', suffix: '.br' },
  { name: 'gzip', suffix: '.gz' },
] as const;

/**
 * Sends a file of a folder, compressed if the build made a compressed variant and the client accepts it.
 * @returns false if there is no such file
 */
export async function sendBuiltFile(
  folder: string,
  place: string,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<boolean> {
  const file = path.join(folder, place);
  const accepted = acceptedEncodings(request.headers['accept-encoding']);
  for (const { name, suffix } of [...encodings.filter((each) => accepted.has(each.name)), { name: '', suffix: '' }]) {
    const body = await contentsOf(`${file}${suffix}`);
    if (body === undefined) continue;
    // Names of assets contain a hash of their contents, so another version has another name.
    const immutable = place.startsWith('assets/');
    void reply.headers({
      'content-type': contentTypes[path.extname(place)],
      'cache-control': immutable ? 'public, max-age=31536000, immutable' : 'no-cache',
      vary: 'accept-encoding',
      ...(name !== '' && { 'content-encoding': name }),
    });
    const etag = etagOf(body);
    void reply.header('etag', etag);
    if (request.headers['if-none-match'] === etag) reply.code(304).send();
    else reply.send(body);
    return true;
  }
  return false;
}

function acceptedEncodings(header: string | string[] | undefined): ReadonlySet<string> {
  return new Set(
    String(header ?? '')
      .slice(0, 200)
      .toLowerCase()
      .split(',')
      .map((entry) => entry.split(';'))
      .filter(([, quality = '']) => !/^\s*q=0(?:\.0*)?\s*$/.test(quality))
      .map(([name = '']) => name.trim()),
  );
}

/**
 * The policy of a page: scripts and styles only from its files, requests only to this server and to the issuers of its users.
 * Pictures that need a token are read by scripts, and shown from memory.
 * @param styles where style sheets may come from
 */
export function pagePolicy(issuerOrigins: readonly string[], styles = "'self'"): string {
  return [
    "default-src 'none'",
    "script-src 'self'",
    `style-src ${styles}`,
    "img-src 'self' blob: data:",
    "font-src 'self'",
    `connect-src ${["'self'", ...issuerOrigins].join(' ')}`,
    "worker-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join('; ');
}
