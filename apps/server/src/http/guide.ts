import { stat } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { ApiError } from '../errors.ts';
import { contentsOf, contentTypes, etagOf, isInside } from './builtFiles.ts';

/** Where `npm run guide` puts the pages: the same folder for sources and for the built server. */
const builtFolder = fileURLToPath(new URL('../../dist/guide/', import.meta.url));

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
      .type(contentTypes['.html'] as string)
      .send(notBuilt);
  const name = place === '' || place.endsWith('/') ? `${place}index.html` : place;
  const type = contentTypes[path.extname(name)];
  const body = type === undefined || !isInside(name) ? undefined : await contentsOf(path.join(folder, name));
  if (type === undefined || body === undefined) throw new ApiError('NotFound');
  const etag = etagOf(body);
  // Pages change with the version of the server, so browsers ask each time; the answer is short if nothing changed.
  reply.headers({ etag, 'cache-control': 'no-cache' });
  if (request.headers['if-none-match'] === etag) return reply.code(304).send();
  return reply
    .header('content-security-policy', type === contentTypes['.svg'] ? picturePolicy : pagePolicy)
    .type(type)
    .send(body);
}

const isBuilt = (folder: string): Promise<boolean> =>
  stat(path.join(folder, 'index.html')).then(
    (found) => found.isFile(),
    () => false,
  );
