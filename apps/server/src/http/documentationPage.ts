import Fastify, { type FastifyInstance } from 'fastify';
import { ApiError } from '../errors.ts';
import { MissingPartError, optionalPart } from '../optionalParts.ts';
import { pagePolicy } from './securityHeaders.ts';

/** A file of the page. */
interface PageFile {
  status: number;
  headers: Record<string, string>;
  body: Buffer;
}

/** Headers of the inner server that are passed on. */
const passedOn = ['content-type', 'cache-control', 'etag', 'location'];

/**
 * The page that shows the API document, and its assets, by URL. Its package takes 0.3 s and 30 MiB to load, so it is loaded with
 * the first request for the page.
 */
export function documentationPage(): (url: string) => Promise<PageFile> {
  let inner: Promise<FastifyInstance> | undefined;
  return async (url) => {
    inner ??= load();
    const page = await inner.catch((error: unknown) => {
      inner = undefined;
      throw error;
    });
    const { statusCode: status, headers: found, rawPayload: body } = await page.inject({ method: 'GET', url });
    const headers = Object.fromEntries(
      passedOn.flatMap((name) => (typeof found[name] === 'string' ? [[name, found[name]]] : [])),
    );
    if (headers['content-type']?.startsWith('text/html') === true)
      headers['content-security-policy'] = pagePolicy(body.toString());
    return { status, headers, body };
  };
}

async function load(): Promise<FastifyInstance> {
  const { default: scalar } = await optionalPart(
    'documentationPage',
    () => import('@scalar/fastify-api-reference'),
  ).catch((cause: unknown) => {
    if (!(cause instanceof MissingPartError)) throw cause;
    throw new ApiError('Unavailable', {
      message:
        'This installation cannot show the API document as a page: @scalar/fastify-api-reference is not installed. The document itself is at /openapi.json.',
      cause,
    });
  });
  const page = Fastify({ routerOptions: { ignoreTrailingSlash: true, caseSensitive: false } });
  await page.register(scalar, {
    routePrefix: '/docs',
    // Served from the package, with every feature disabled that would load from or send the document to other hosts.
    configuration: {
      url: '../openapi.json',
      title: 'Offshoot',
      withDefaultFonts: false,
      telemetry: false,
      hideClientButton: true,
      showDeveloperTools: 'never',
      agent: { disabled: true },
      mcp: { disabled: true },
      authentication: { preferredSecurityScheme: 'bearer' },
    },
  });
  await page.ready();
  return page;
}
