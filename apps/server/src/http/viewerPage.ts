import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { ApiError } from '../errors.ts';
import { contentsOf, contentTypes, etagOf, isInside, pagePolicy, sendBuiltFile } from './builtFiles.ts';

/** Path of the viewer below the address of the server. */
const viewerPath = '/viewer';
/** The package with the page. It is installed separately: building it takes 450 MB of packages that nothing else uses. */
const viewerPackage = '@offshoot/viewer';
/** Where `npm run viewer` puts the files in a checkout. */
const builtFolder = fileURLToPath(new URL('../../../../packages/viewer/dist/', import.meta.url));

export interface ViewerPageOptions {
  /** The built files; by default those of the package `@offshoot/viewer`, or of the checkout. */
  folder?: string | undefined;
  /** Origins of issuers at which users of the console sign in. */
  issuerOrigins: readonly string[];
}

/** The page with the official iTwin viewer, which an installation may have. Files are read when they are requested. */
export class ViewerPage {
  readonly #folder: string;
  readonly #policy: string;

  constructor({ folder = installedFolder() ?? builtFolder, issuerOrigins }: ViewerPageOptions) {
    this.#folder = folder;
    // iTwin.js adds style sheets to the page. The web font that it names at another host is refused, and a font of the system is shown.
    this.#policy = pagePolicy(issuerOrigins, "'self' 'unsafe-inline'");
  }

  /** Whether the page is installed or built. */
  async isThere(): Promise<boolean> {
    return (await this.#page()) !== undefined;
  }

  /** Serves the page at `/viewer/`, and its files below. */
  serve(app: FastifyInstance): void {
    // Relative, so that the path below which a proxy serves this server does not matter.
    app.get(viewerPath, async (request, reply) => {
      const [written = '', search] = request.url.split('?', 2);
      if (written.endsWith('/')) return this.#sendPage(request, reply);
      return reply.redirect(`${viewerPath.slice(1)}/${search === undefined ? '' : `?${search}`}`);
    });
    app.get(
      `${viewerPath}/*`,
      async (request: FastifyRequest<{ Params: { '*'?: string } }>, reply): Promise<FastifyReply> => {
        const place = request.params['*'] ?? '';
        if (place === '' || place === 'index.html') return this.#sendPage(request, reply);
        const isFile = isInside(place) && contentTypes[path.extname(place)] !== undefined;
        if (isFile && (await sendBuiltFile(this.#folder, place, request, reply))) return reply;
        throw new ApiError('NotFound');
      },
    );
  }

  #page(): Promise<Buffer | undefined> {
    return contentsOf(path.join(this.#folder, 'index.html'));
  }

  async #sendPage(request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
    const html = await this.#page();
    if (html === undefined) throw new ApiError('NotFound');
    const etag = etagOf(html);
    void reply.headers({
      'content-security-policy': this.#policy,
      'content-type': contentTypes['.html'],
      'cache-control': 'no-cache',
      etag,
    });
    return request.headers['if-none-match'] === etag ? reply.code(304).send() : reply.send(html);
  }
}

function installedFolder(): string | undefined {
  try {
    return path.join(path.dirname(createRequire(import.meta.url).resolve(`${viewerPackage}/package.json`)), 'dist');
  } catch {
    return undefined;
  }
}
