import { createHash } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { ApiError } from '../errors.ts';

/** Where `npm run guide` puts the pages: the same folder for sources and for the built server. */
const builtFolder = fileURLToPath(new URL('../../dist/guide/', import.meta.url));

const types: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.json': 'application/json; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
  '.txt': 'text/plain; charset=utf-8',
};

/** No part begins with a dot, so no path leads out of the folder. */
const isInside = (place: string): boolean => /^(?:\w[\w.-]*\/)*\w[\w.-]*$/.test(place);

/** Scripts and styles only from files of the guide; its pictures have styles of their own. */
const pagePolicy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');
const picturePolicy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";

const notBuilt = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>The guide is not built</title>
<h1>The guide is not built</h1>
<p>This server has no guide: it runs from the sources, and nobody has built the pages yet. Build them in the folder of the
repository; the server does not have to be restarted:</p>
<pre>npm run guide</pre>
<p>The same documents are Markdown files in the folder <code>docs</code> of the repository. Start with
<code>docs/README.md</code>.</p>
<p><a href="../">The document of the API</a> is available.</p>
</html>
`;

/**
 * Serves the guide at `/docs/guide`. Nothing is read before the first request for a page.
 * @param folder the pages; by default those of this installation
 */
export function serveGuide(app: FastifyInstance, folder = builtFolder): void {
  const sendPage = (place: string, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> =>
    send(folder, place, request, reply);
  // Its pages have relative links, so the address of the first one needs the trailing slash.
  app.get('/docs/guide', async (request, reply) =>
    request.url.split('?', 1)[0]?.endsWith('/') === true
      ? sendPage('', request, reply)
      : reply.redirect(`${request.url.split('?', 1)[0]?.split('/').at(-1) ?? 'guide'}/`),
  );
  app.get<{ Params: { '*': string } }>('/docs/guide/*', (request, reply) =>
    sendPage(request.params['*'], request, reply),
  );
}

async function send(
  folder: string,
  place: string,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<FastifyReply> {
  if (!(await isBuilt(folder)))
    return reply
      .code(404)
      .header('content-security-policy', pagePolicy)
      .type(types['.html'] as string)
      .send(notBuilt);
  const name = place === '' || place.endsWith('/') ? `${place}index.html` : place;
  const type = types[path.extname(name)];
  const body = type === undefined || !isInside(name) ? undefined : await contents(path.join(folder, name));
  if (type === undefined || body === undefined) throw new ApiError('NotFound');
  const etag = `"${createHash('sha256').update(body).digest('base64url')}"`;
  // Pages change with the version of the server, so browsers ask each time; the answer is short if nothing changed.
  reply.headers({ etag, 'cache-control': 'no-cache' });
  if (request.headers['if-none-match'] === etag) return reply.code(304).send();
  return reply
    .header('content-security-policy', type === types['.svg'] ? picturePolicy : pagePolicy)
    .type(type)
    .send(body);
}

const isBuilt = (folder: string): Promise<boolean> =>
  stat(path.join(folder, 'index.html')).then(
    (found) => found.isFile(),
    () => false,
  );

/** @returns undefined if there is no such file */
async function contents(file: string): Promise<Buffer | undefined> {
  try {
    return await readFile(file);
  } catch (error) {
    if (['ENOENT', 'ENOTDIR', 'EISDIR', 'ENAMETOOLONG'].includes((error as NodeJS.ErrnoException).code ?? ''))
      return undefined;
    throw error;
  }
}
