import type { IncomingMessage, ServerResponse } from 'node:http';
import cors, { type FastifyCorsOptions } from '@fastify/cors';
import swagger from '@fastify/swagger';
import scalar from '@scalar/fastify-api-reference';
import Fastify, { LogController, type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import { baseUrlOf } from './api/baseUrl.ts';
import { answerClientError } from './api/clientErrors.ts';
import { registerRoutes, sendError, type RegisterOptions } from './api/register.ts';
import { routes } from './api/routes.ts';
import { parseQuery } from './api/text.ts';
import { IsolationError } from './checkpoints/itwinjs/isolation.ts';
import type { IsolationLevel } from './domain.ts';
import type { Workers } from './checkpoints/itwinjs/workers.ts';
import type { Config } from './config.ts';
import { ApiError } from './errors.ts';
import { addSecurityHeaders, pagePolicy } from './http/securityHeaders.ts';
import { proxyTrust } from './http/trustedProxies.ts';
import { discardUnreadBodies } from './http/unreadBodies.ts';
import { serveMetrics } from './wiring/metrics.ts';
import { PublicError } from './operations/reasons.ts';
import { within } from './operations/within.ts';
import { noteOrigins, originsOf } from './wiring/ownAddresses.ts';
import { Readiness } from './wiring/readiness.ts';
import { openServices } from './wiring/services.ts';
import type { Services } from './services.ts';
import { dataPlane } from './api/storage/dataPlane.ts';
import { Downloads } from './api/storage/downloads.ts';
import { exportTraces, traceOfLog, traceRequests } from './traces/traces.ts';
import { printableLog } from './terminal.ts';
import { version } from './version.ts';

/** A server that listens. */
export interface RunningServer {
  app: FastifyInstance;
  services: Services;
  /** `http://host:port`, without a slash at the end. */
  origin: string;
  /** The same of the port of `/metrics`, where it has one of its own. */
  metricsOrigin?: string;
  /** Finishes the requests under way, within `shutdownSeconds`, then closes database and store. */
  close(): Promise<void>;
}

export interface ServerOptions extends RegisterOptions {
  /** A worker runs jobs and answers nothing but health and metrics. */
  role?: 'server' | 'worker';
}

/** How long connections may take to end once they are cut, and the last spans to be sent, milliseconds. */
const connectionsMs = 1000;
const lastSpansMs = 500;
/** How long an answer about readiness waits for its details, milliseconds. */
const detailsMs = 500;

/** How often connections are looked through for requests whose head does not arrive, milliseconds. */
const connectionsLookMs = 1000;

/** Largest body of an API request, bytes. Files do not come this way. */
const bodyLimit = 1024 * 1024;

/**
 * Starts a server: the one place where everything is wired.
 * @throws ConfigError, NewerSchemaError, DataFolderInUseError, or what listening on the address throws
 */
export async function startServer(config: Config, options: ServerOptions = {}): Promise<RunningServer> {
  const traces = await exportTraces(config);
  const app = Fastify({
    bodyLimit,
    trustProxy: proxyTrust(config.trustProxy),
    logger: {
      level: config.logLevel,
      ...(traces !== undefined && { mixin: traceOfLog }),
      redact: ['req.headers.authorization'],
      hooks: { streamWrite: printableLog },
      serializers: {
        // Without the query: signed links are as good as keys.
        req: (request: { method: string; url: string; ip?: string }) => ({
          method: request.method,
          url: request.url.split('?', 1)[0] ?? '',
          remoteAddress: request.ip ?? '',
        }),
      },
      ...(config.logPretty && {
        transport: { target: 'pino-pretty', options: { ignore: 'pid,hostname', singleLine: true } },
      }),
    },
    // One line a request is for looking into something, not for every day.
    logController: new LogController({
      disableRequestLogging: config.logLevel !== 'debug' && config.logLevel !== 'trace',
    }),
    routerOptions: {
      ignoreTrailingSlash: true,
      maxParamLength: 500,
      querystringParser: parseQuery,
      caseSensitive: false,
    },
    forceCloseConnections: 'idle',
    // While the server ends, requests are refused in the API's envelope by a hook of ours.
    return503OnClosing: false,
    clientErrorHandler: answerClientError,
    // Node would refuse these without a body; a hook of ours does it in the envelope.
    http: {
      requireHostHeader: false,
      headersTimeout: config.requests.headersSeconds * 1000,
      connectionsCheckingInterval: connectionsLookMs,
    },
    frameworkErrors: (error, request, reply) => {
      sendError(error, request, reply);
    },
  });
  if (traces !== undefined) traceRequests(app);
  discardUnreadBodies(app, config.requests.bodySeconds * 1000);
  addSecurityHeaders(app.server);
  const services = await openServices(config, app.log).catch(async (error: unknown) => {
    await traces?.stop();
    throw error;
  });
  const metrics = metricsServer(app, services);
  try {
    await wire(app, services, options);
    await metrics?.listen({ host: config.host, port: config.metricsPort ?? 0 });
    await app.listen({ host: config.host, port: config.port });
  } catch (error) {
    await metrics?.close();
    await app.close();
    await services.close();
    await traces?.stop();
    throw error;
  }
  if (options.role !== 'worker') noteAddresses(app, config);
  services.collector.start(config.collector.intervalSeconds);
  services.jobs.start();
  warningsOf(services).then(
    (warnings) => warnings.forEach((warning) => app.log.warn(warning)),
    (error: unknown) => app.log.error({ err: error }, 'cannot look for work that nobody does'),
  );
  const ending = new AbortController();
  const catchingUp = services.checkpoints.catchUp(ending.signal).then(
    (ordered) => ordered === 0 || app.log.info({ ordered }, 'ordered checkpoints that were missing'),
    (error: unknown) =>
      app.log.error({ err: error }, 'cannot look for missing checkpoints; tried again at the next start'),
  );
  const retrying =
    services.workers === undefined
      ? undefined
      : retryFailed(services, services.workers, ending.signal).then(
          (retried) =>
            retried === 0 ||
            app.log.info({ retried }, 'failed checkpoints are tried again: the installed iTwin.js is a later version'),
          (error: unknown) =>
            app.log.error({ err: error }, 'cannot try failed checkpoints again; done at the next start'),
        );
  return {
    app,
    services,
    origin: config.publicUrl ?? localOrigin(app, config),
    ...(metrics !== undefined && { metricsOrigin: localOrigin(metrics, config) }),
    close: async () => {
      ending.abort();
      const graceMs = config.shutdownSeconds * 1000;
      await Promise.all([closeApp(app, graceMs), services.stop(graceMs), metrics?.close()]);
      await services.close();
      await within(Promise.all([catchingUp, retrying]), lastSpansMs);
      if (traces !== undefined) await within(traces.stop(), lastSpansMs);
    },
  };
}

async function retryFailed({ checkpoints }: Services, workers: Workers, signal: AbortSignal): Promise<number> {
  return checkpoints.retryFailed(await workers.version(), signal);
}

/** Notes where the server listens. One that cannot, because the disk is full, serves all the same. */
function noteAddresses(app: FastifyInstance, config: Config): void {
  try {
    noteOrigins(config.dataDir, originsOf(config, portOf(app, config)), config.databaseUrl === undefined);
  } catch (error) {
    app.log.warn({ err: error }, 'cannot note the address of the server: commands mint no tokens for it');
  }
}

/** Lets requests under way finish, but not for ever: a client that stopped reading must not hold the server. */
async function closeApp(app: FastifyInstance, graceMs: number): Promise<void> {
  const closed = app.close();
  if (await within(closed, graceMs)) return closed;
  app.server.closeAllConnections();
  if (!(await within(closed, connectionsMs))) app.log.warn('requests under way did not end in time');
}

/** The server of `/metrics`, which knows no other address; undefined where the server of the API answers it, or nobody. */
function metricsServer(app: FastifyInstance, { config, database }: Services): FastifyInstance | undefined {
  if (!config.metrics) return undefined;
  const own = config.metricsPort === undefined ? undefined : Fastify({ forceCloseConnections: true, bodyLimit });
  if (own !== undefined) addSecurityHeaders(own.server);
  serveMetrics(app, own ?? app, database);
  return own;
}

async function wire(app: FastifyInstance, services: Services, options: ServerOptions): Promise<void> {
  app.setErrorHandler((error, request, reply) => sendError(error as Error, request, reply));
  app.setNotFoundHandler((request, reply) => sendError(new ApiError('NotFound'), request, reply));
  app.server.on('checkExpectation', (_request: IncomingMessage, response: ServerResponse) => {
    const refusal = new ApiError('ExpectationFailed');
    const body = JSON.stringify(refusal.toBody());
    response
      .writeHead(refusal.status, {
        'content-type': 'application/json; charset=utf-8',
        'content-length': Buffer.byteLength(body),
        connection: 'close',
      })
      .end(body);
  });
  if (options.role !== 'worker') await app.register(cors, corsOptions(services.config));
  let ending = false;
  app.addHook('preClose', async () => {
    ending = true;
  });
  // After the headers of CORS, which a page needs to read a refusal.
  app.addHook('onRequest', async (request, reply) => {
    if (ending)
      return sendError(
        new ApiError('Unavailable', { headers: { 'retry-after': '5', connection: 'close' } }),
        request,
        reply,
      );
    if (request.headers.host === undefined && request.raw.httpVersion === '1.1')
      return sendError(new ApiError('BadRequest'), request, reply);
    // Before the body is read: whatever it is, there is nothing at this address.
    if (request.is404) return sendError(new ApiError('NotFound'), request, reply);
  });
  if (options.role !== 'worker') await wireApi(app, services, options);
  // Alive is who answers at all; ready who also reaches the database and the stores.
  app.get('/health', { schema: { hide: true } }, () => ({ status: 'ok', version }));
  const { database, space, blobs } = services;
  const readiness = new Readiness([
    {
      reason: 'The database does not answer.',
      check: () => database.watchDb.selectFrom('secret').select('name').limit(1).execute(),
    },
    ...(database.writer === undefined
      ? []
      : [{ reason: 'The database cannot be written.', check: async () => database.writer?.answers() }]),
    { reason: 'The data folder cannot be reached.', check: () => space.require() },
    ...blobs.stores.all.map((store) => ({ reason: 'The store of files does not answer.', check: () => store.check() })),
  ]);
  app.get('/health/ready', { schema: { hide: true } }, async (request, reply) => {
    const missing = await readiness.missing();
    if (missing.length === 0) return { status: 'ok', version, ...(await detailsInTime(services)) };
    for (const { reason, cause } of missing) request.log.warn({ err: cause }, `not ready: ${reason}`);
    return reply
      .code(503)
      .header('retry-after', '5')
      .send({ status: 'unavailable', version, reasons: [...new Set(missing.map(({ reason }) => reason))] });
  });
}

function corsOptions({ corsOrigins }: Config): FastifyCorsOptions {
  return {
    origin: corsOrigins.includes('*') ? '*' : corsOrigins,
    methods: ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE'],
    // What a browser may read besides the body.
    exposedHeaders: [
      'Location',
      'Create-iModel-Operation',
      'Retry-After',
      'ITwinPlatform-RateLimited-Tier',
      'ITwinPlatform-RateLimited-API',
      'ITwinPlatform-RateLimited-Operation',
      'ITwinPlatform-RateLimited-Application',
      'ETag',
      'Content-Length',
      'Content-Range',
      'x-ms-error-code',
      'Idempotent-Replayed',
    ],
    maxAge: 600,
    // Other uses of OPTIONS are answered as well; the alternative is a refusal in plain text.
    strictPreflight: false,
  };
}

/** What a job of each kind does, for the people who run an installation. */
const workOf: Record<string, string> = {
  checkpoint: 'Checkpoints and uploaded baselines wait: no server of this installation has iTwin.js and makes them.',
  derive: 'Forks and iModels from templates wait: no server of this installation has iTwin.js and makes them.',
  transferFiles:
    'Copies into other data centers wait: no server of this installation runs them (transfers.slots, jobs.here, workers).',
  transferCheckpoints:
    'Checkpoints of copies into other data centers wait: no server of this installation runs them (transfers.slots, jobs.here, workers).',
  deliver: 'Messages to webhooks wait: no server of this installation sends them (webhooks.here, jobs.here, workers).',
};

/** What is told beside that a server is ready. */
interface Details {
  warnings?: string[];
  /** How far iTwin.js is kept from everything else where this server makes checkpoints. */
  checkpoints?: { isolation: IsolationLevel };
}

/** Work that waits for a server that can do it. The server is ready all the same: it is not its fault, and a restart is no cure. */
async function warningsOf({ jobs }: Services): Promise<string[]> {
  return (await jobs.unserved()).map(
    (kind) => workOf[kind] ?? `Jobs of kind ${kind} wait: no server of this installation runs them.`,
  );
}

/** Details within the time that readiness has: a database or an iTwin.js service that is slow in this moment only costs these. */
async function detailsInTime(services: Services): Promise<Details> {
  const details: Details = {};
  const warn = (warnings: readonly string[]): void => {
    if (warnings.length > 0) details.warnings = [...(details.warnings ?? []), ...warnings];
  };
  const level = services.workers?.level().then(
    (isolation) => (details.checkpoints = { isolation }),
    (error: unknown) => warn(error instanceof IsolationError || error instanceof PublicError ? [error.message] : []),
  );
  await within(Promise.all([warningsOf(services).then(warn), level]), detailsMs);
  return { ...details };
}

async function wireApi(app: FastifyInstance, services: Services, options: RegisterOptions): Promise<void> {
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Offshoot',
        version,
        description:
          'iModels API v2, iTwins and access control of this server. Files go through signed links, which are not part of this document.',
        license: { name: 'MIT' },
      },
      security: [{ bearer: [] }],
      components: { securitySchemes: { bearer: { type: 'http', scheme: 'bearer', bearerFormat: 'JWT' } } },
    },
  });
  await app.register(async (api) => registerRoutes(api, services, routes, options));
  await app.register(dataPlane, {
    blobs: services.blobs,
    uploads: services.uploads,
    links: services.signedLinks,
    containers: services.containers,
    addressLimits: services.addressLimits,
    downloads: new Downloads(services.config.downloads),
    shares: services.shares,
    stallMs: services.config.requests.uploadStallSeconds * 1000,
  });
  app.get('/openapi.json', { schema: { hide: true } }, (request) => ({
    ...app.swagger(),
    servers: [{ url: baseUrlOf(request, services.config) }],
  }));
  // Relative where nothing says below which path a proxy serves this server.
  const toDocument = (request: FastifyRequest, reply: FastifyReply): FastifyReply => {
    const { publicUrl, trustProxy } = services.config;
    return reply.redirect(
      publicUrl !== undefined || trustProxy !== false ? `${baseUrlOf(request, services.config)}/docs/` : 'docs/',
    );
  };
  app.get('/', { schema: { hide: true } }, toDocument);
  await app.register(async (pages) => {
    pages.addHook('onSend', async (_request, reply, payload) => {
      if (typeof payload === 'string' && String(reply.getHeader('content-type')).startsWith('text/html'))
        reply.header('content-security-policy', pagePolicy(payload));
      return payload;
    });
    await pages.register(scalar, {
      routePrefix: '/docs',
      hooks: {
        // The page finds its parts beside itself, so its address needs the slash.
        onRequest: (request, reply, done) => {
          if (/\/docs$/i.test(request.url.split('?', 1)[0] ?? '')) toDocument(request, reply);
          else done();
        },
      },
      // Served from the package: the page needs no network, and offers nothing that would send the document elsewhere.
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
  });
}

/** Where a client on this machine reaches a server. */
function localOrigin(app: FastifyInstance, config: Config): string {
  const port = portOf(app, config);
  const everywhere = config.host === '0.0.0.0' || config.host === '::';
  const host =
    everywhere || config.host === '127.0.0.1'
      ? 'localhost'
      : config.host.includes(':')
        ? `[${config.host}]`
        : config.host;
  return `http://${host}:${port}`;
}

function portOf(app: FastifyInstance, config: Config): number {
  const address = app.server.address();
  return typeof address === 'object' && address !== null ? address.port : config.port;
}
