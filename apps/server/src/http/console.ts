import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { ApiError } from '../errors.ts';
import { contentsOf, contentTypes, etagOf, isInside, pagePolicy, sendBuiltFile } from './builtFiles.ts';

/** Path of the console below the address of the server. */
export const consolePath = '/console';

/** Where `npm run console` puts the files: the same folder for sources and for the built server. */
const builtFolder = fileURLToPath(new URL('../../dist/console/', import.meta.url));

/** Whether a browser navigates, rather than a program asking for data. */
export const wantsPage = ({ headers }: FastifyRequest): boolean => headers.accept?.includes('text/html') === true;

const notBuilt = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>The console is not built</title>
<h1>The console is not built</h1>
<p>This server runs from the sources, and nobody has built the console yet. <code>npm start</code> builds it; so does this
command in the folder of the repository. The server does not have to be restarted:</p>
<pre>npm run console</pre>
<p><a href="../docs/">The document of the API</a> is available.</p>
</html>
`;

export interface ConsoleOptions {
  /** The built files; by default those of this installation. */
  folder?: string | undefined;
  /** Origins of issuers at which users of the console sign in. */
  issuerOrigins: readonly string[];
}

/**
 * Serves the console below `/console`. Every path of it that names no file is answered with the same page, which shows what the
 * path says. Files are read when they are requested.
 */
export function serveConsole(app: FastifyInstance, { folder = builtFolder, issuerOrigins }: ConsoleOptions): void {
  const policy = pagePolicy(issuerOrigins);
  const serve = async (request: FastifyRequest<{ Params: { '*'?: string } }>, reply: FastifyReply) => {
    const place = request.params['*'] ?? '';
    if (place !== 'index.html' && isInside(place) && contentTypes[path.extname(place)] !== undefined) {
      if (await sendBuiltFile(folder, place, request, reply)) return reply;
      throw new ApiError('NotFound');
    }
    if (place !== '' && !wantsPage(request)) throw new ApiError('NotFound');
    return sendPage(folder, { place, policy }, request, reply);
  };
  // Relative, so that the path below which a proxy serves this server does not matter.
  app.get(consolePath, async (request, reply) => {
    const written = request.url.split('?', 1)[0] ?? '';
    return written.endsWith('/')
      ? sendPage(folder, { place: '', policy }, request, reply)
      : reply.redirect(`${written.split('/').at(-1) ?? 'console'}/`);
  });
  app.get(`${consolePath}/*`, serve);
}

/** The page. Its links to files are relative to the folder of the console, so they depend on how deep the path is. */
async function sendPage(
  folder: string,
  { place, policy }: { place: string; policy: string },
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<FastifyReply> {
  const html = await contentsOf(path.join(folder, 'index.html'));
  void reply.headers({
    'content-security-policy': policy,
    'content-type': contentTypes['.html'],
    'cache-control': 'no-cache',
    vary: 'accept',
  });
  if (html === undefined) return reply.code(404).send(notBuilt);
  const up = '../'.repeat(place.split('/').length - 1);
  const page = html.toString().replaceAll(/(?<=(?:src|href)=")\.\//g, up === '' ? './' : up);
  const etag = etagOf(page);
  void reply.header('etag', etag);
  if (request.headers['if-none-match'] === etag) return reply.code(304).send();
  return reply.send(page);
}
