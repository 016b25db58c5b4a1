import type { IncomingMessage } from 'node:http';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { Provider } from 'oidc-provider';
import type { EmbeddedIssuer } from '../../access/embeddedIssuer.ts';
import { signInBase, signInPath, SignInRefusedError } from '../../access/signInIssuer.ts';
import { SignInLimits } from '../../access/signInLimits.ts';
import { BoundedCache } from '../../boundedCache.ts';
import { ApiError } from '../../errors.ts';
import { continueIfExpected } from '../../http/unreadBodies.ts';
import type { Services } from '../../services.ts';
import { baseUrlOf } from '../baseUrl.ts';
import { interactionRoutes, sendPage } from './interactions.ts';
import { errorPage } from './pages.ts';
import { passwordRoutes } from './passwordRoutes.ts';
import { cookieKey, makeProvider, userClaims, type ProviderParts } from './provider.ts';
import { languageOf } from './texts.ts';

/** Longest form of the pages, bytes. The library limits the requests that it reads itself. */
const formLimit = 16 * 1024;
/** Providers kept in memory: one for the public address, or one for each loopback address in use. */
const mostProviders = 8;
/** Endpoints that accept an ID token as a hint, which may be signed with an earlier key. */
const hintedPath = /^\/(?:sign-out|authorize)\?/;

/** Serves sign-in below `/auth`: the OpenID Provider and its pages. Nothing of it is loaded or written before the first request. */
export async function signIn(app: FastifyInstance, { services }: { services: Services }): Promise<void> {
  const { embedded, config } = services;
  if (embedded === undefined) return;
  const providerFor = providersOf(services, embedded, app);
  app.setErrorHandler((error, request, reply) => {
    if (!(error instanceof SignInRefusedError)) throw error as Error;
    if (request.headers.accept?.includes('text/html') === true)
      return sendPage(reply, 403, errorPage(languageOf(request.headers['accept-language']), error.message));
    return reply.code(403).send({ error: 'access_denied', error_description: error.message });
  });

  app.get('/jwks', async (_request, reply) =>
    reply.header('cache-control', 'public, max-age=60').send(await embedded.publicKeySet()),
  );
  const userinfo = async (request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> => {
    const { user } = await services.tokens.authenticate(request.headers.authorization).catch((error: unknown) => {
      if (error instanceof ApiError && error.status === 401)
        void reply.header('www-authenticate', 'Bearer error="invalid_token"');
      throw error;
    });
    const listed = await services.accounts.find(user.id);
    return reply
      .header('cache-control', 'no-store')
      .send(listed === undefined ? { sub: user.identity.subject } : userClaims(listed));
  };
  app.get('/userinfo', userinfo);

  await app.register(async (forms) => {
    forms.removeAllContentTypeParsers();
    forms.addContentTypeParser(
      'application/x-www-form-urlencoded',
      { parseAs: 'string', bodyLimit: formLimit },
      (_request, body, done) => done(null, new URLSearchParams(String(body))),
    );
    interactionRoutes(forms, { ...partsOf(services, embedded, app), limits: new SignInLimits(config), providerFor });
    passwordRoutes(forms, {
      accounts: services.accounts,
      requireAllowed: (request) => void signInBase(config, baseUrlOf(request, config)),
    });
  });
  await app.register(async (rest) => {
    rest.removeAllContentTypeParsers();
    // The library reads the body itself.
    rest.addContentTypeParser('*', (_request, _payload, done) => done(null));
    rest.post('/userinfo', userinfo);
    rest.route({
      method: ['GET', 'POST'],
      url: '/*',
      handler: async (request, reply) => {
        const provider = await providerFor(request);
        const { kid } = await embedded.signingKey();
        reply.hijack();
        passOn(request, reply, provider, { kid, bodyMs: config.requests.bodySeconds * 1000 });
      },
    });
  });
}

function partsOf(services: Services, issuer: EmbeddedIssuer, app: FastifyInstance): ProviderParts {
  return {
    config: services.config,
    issuer,
    accounts: services.accounts,
    clients: services.signInClients,
    state: services.signInState,
    claimsIn: (token) => services.tokens.claimsIn(token),
    settled: async () => services.database.settling,
    log: app.log,
  };
}

/** The provider at the address of a request, with the current key. */
function providersOf(
  services: Services,
  embedded: EmbeddedIssuer,
  app: FastifyInstance,
): (request: FastifyRequest) => Promise<Provider> {
  const { config, database } = services;
  const parts = partsOf(services, embedded, app);
  const providers = new BoundedCache<string, Promise<Provider>>(mostProviders);
  let cookieSecret: Promise<string> | undefined;
  return async (request) => {
    const base = signInBase(config, baseUrlOf(request, config));
    const key = await embedded.signingKey();
    const id = `${base} ${key.kid}`;
    const known = providers.get(id);
    if (known !== undefined) return known;
    cookieSecret ??= cookieKey(database.db);
    const secret = cookieSecret;
    const made = secret.then((value) => makeProvider(parts, base, key, value));
    providers.set(id, made);
    return made.catch((error: unknown) => {
      providers.delete(id);
      if (cookieSecret === secret) cookieSecret = undefined;
      throw error;
    });
  };
}

/**
 * Lets the library answer a request. It takes the address from the headers of a proxy, which here are those of the configured
 * address, whatever the client sent.
 */
function passOn(
  request: FastifyRequest,
  reply: FastifyReply,
  provider: Provider,
  { kid, bodyMs }: { kid: string; bodyMs: number },
): void {
  const raw = request.raw as IncomingMessage & { originalUrl?: string };
  const { pathname, host, protocol } = new URL(provider.issuer);
  raw.headers['x-forwarded-proto'] = protocol.slice(0, -1);
  raw.headers['x-forwarded-host'] = host;
  raw.headers['x-forwarded-for'] = request.ip;
  const rest = (raw.url ?? '').slice(signInPath.length);
  const url = hintedPath.test(rest) ? withoutOldHint(rest, kid) : rest;
  raw.url = url;
  raw.originalUrl = `${pathname}${url}`;
  continueIfExpected(raw, reply.raw);
  const timer = setTimeout(() => raw.complete || raw.destroy(), bodyMs).unref();
  reply.raw.once('close', () => clearTimeout(timer));
  void provider.callback()(raw, reply.raw);
}

/**
 * The library knows the current key only and refuses ID tokens of earlier ones. As a hint, such a token says which client it was
 * issued to; the client may say so itself, so nothing depends on its signature.
 */
function withoutOldHint(url: string, kid: string): string {
  const [path = '', query = ''] = url.split('?', 2);
  const parameters = new URLSearchParams(query);
  const hint = parameters.get('id_token_hint');
  if (hint === null) return url;
  const [header, claims] = hint.split('.').map(jsonIn);
  if (header === undefined || header['kid'] === kid) return url;
  const aud = claims?.['aud'];
  if (!parameters.has('client_id') && typeof aud === 'string') parameters.set('client_id', aud);
  parameters.delete('id_token_hint');
  return `${path}?${parameters.toString()}`;
}

/** A part of a JSON Web Token; undefined if it is not a JSON object. */
function jsonIn(part: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(Buffer.from(part, 'base64url').toString('utf8'));
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
