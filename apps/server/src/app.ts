import type { IncomingMessage, ServerResponse } from 'node:http';
import cors, { type FastifyCorsOptions } from '@fastify/cors';
import Fastify, {
  LogController,
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
  type FastifyServerOptions,
} from 'fastify';
import { baseUrlOf } from './api/baseUrl.ts';
import { answerClientError } from './api/clientErrors.ts';
import { issuerOrigins, serveConsoleSettings } from './api/console.ts';
import { registerRoutes, sendError, type RegisterOptions } from './api/register.ts';
import { routes } from './api/routes.ts';
import { signInPath } from './access/signInIssuer.ts';
import { signIn } from './api/signIn/signIn.ts';
import { parseQuery } from './api/text.ts';
import { IsolationError } from './checkpoints/itwinjs/isolation.ts';
import type { IsolationLevel } from './domain.ts';
import type { Workers } from './checkpoints/itwinjs/workers.ts';
import type { Config } from './config.ts';
import { ApiError } from './errors.ts';
import { drawEarlierCheckpoints, forgetCaughtUp } from './graphics/catchUp.ts';
import { consolePath, serveConsole, wantsPage } from './http/console.ts';
import { ViewerPage } from './http/viewerPage.ts';
import { documentationPage } from './http/documentationPage.ts';
import { GroupedResponse } from './http/groupedResponses.ts';
import { serveGuide } from './http/guide.ts';
import { addSecurityHeaders } from './http/securityHeaders.ts';
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

/** A running server. */
export interface RunningServer {
  app: FastifyInstance;
  services: Services;
  /** `http://host:port`, without a trailing slash. */
  origin: string;
  /** The origin of `/metrics` if it has a separate port. */
  metricsOrigin?: string;
  /** Finishes pending requests within `shutdownSeconds`, then closes the database and the stores. */
  close(): Promise<void>;
}

export interface ServerOptions extends RegisterOptions {
  /** A worker runs jobs and only serves health and metrics. */
  role?: 'server' | 'worker';
  /** Folder of the pages at `/docs/guide`; by default those that were built with the server. */
  guideFolder?: string;
  /** Folder of the console at `/console`; by default the one that was built with the server. */
  consoleFolder?: string;
  /** Folder of the viewer at `/viewer`; by default that of the package `@offshoot/viewer`. */
  viewerFolder?: string;
  /** Where the log is written; stdout by default. */
  logTo?: 'stdout' | 'stderr';
}

/** Maximum times for closing destroyed connections and for sending the last spans, milliseconds. */
const connectionsMs = 1000;
const lastSpansMs = 500;
/** How long a readiness response waits for its details, milliseconds. */
const detailsMs = 500;

/** How often connections are checked for requests whose headers do not arrive in time, milliseconds. */
const connectionsCheckMs = 1000;

/** Maximum size of an API request body, bytes. Files are uploaded through signed links instead. */
const bodyLimit = 1024 * 1024;

/**
 * Starts a server; the composition root of the application.
 * @throws ConfigError, NewerSchemaError, DataFolderInUseError, or what listening on the address throws
 */
export async function startServer(config: Config, options: ServerOptions = {}): Promise<RunningServer> {
  const traces = await exportTraces(config);
  const app = Fastify({
    bodyLimit,
    trustProxy: proxyTrust(config.trustProxy),
    logger: loggerOptions(config, options.logTo, traces !== undefined),
    // A log line per request is only useful for debugging.
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
    // During shutdown an `onRequest` hook rejects requests with the API's error envelope.
    return503OnClosing: false,
    clientErrorHandler: answerClientError,
    // Node would reject requests without a Host header without a body; an `onRequest` hook uses the error envelope.
    http: {
      requireHostHeader: false,
      ServerResponse: GroupedResponse,
      headersTimeout: config.requests.headersSeconds * 1000,
      connectionsCheckingInterval: connectionsCheckMs,
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
  const metrics = await metricsServer(app, services);
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
  services.viewer.listensAt(localOrigin(app, config).replace('//localhost:', '//127.0.0.1:'));
  services.collector.start(config.collector.intervalSeconds);
  services.jobs.start();
  warningsOf(services).then(
    (warnings) => warnings.forEach((warning) => app.log.warn(warning)),
    (error: unknown) => app.log.error({ err: error }, 'cannot check for unserved jobs'),
  );
  const ending = new AbortController();
  const catchingUp = services.checkpoints.catchUp(ending.signal).then(
    (scheduled) => scheduled === 0 || app.log.info({ scheduled }, 'scheduled missing checkpoints'),
    (error: unknown) =>
      app.log.error({ err: error }, 'cannot check for missing checkpoints; will retry at the next start'),
  );
  const retrying =
    services.workers === undefined
      ? undefined
      : retryFailed(services, services.workers, ending.signal).then(
          (retried) =>
            retried === 0 ||
            app.log.info({ retried }, 'retrying failed checkpoints with the newer installed version of iTwin.js'),
          (error: unknown) =>
            app.log.error({ err: error }, 'cannot retry failed checkpoints; will retry at the next start'),
        );
  const drawing = drawEarlier(app, services, ending.signal);
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
      await within(Promise.all([catchingUp, retrying, drawing]), lastSpansMs);
      if (traces !== undefined) await within(traces.stop(), lastSpansMs);
    },
  };
}

function loggerOptions(
  config: Config,
  logTo: ServerOptions['logTo'],
  isTraced: boolean,
): Exclude<FastifyServerOptions['logger'], boolean | undefined> {
  const stream = logTo === 'stderr' ? process.stderr : process.stdout;
  return {
    level: config.logLevel,
    ...(isTraced && { mixin: traceOfLog }),
    redact: ['req.headers.authorization'],
    hooks: { streamWrite: printableLog },
    serializers: {
      // Without the query: the signature of a link is a credential.
      req: (request: { method: string; url: string; ip?: string }) => ({
        method: request.method,
        url: request.url.split('?', 1)[0] ?? '',
        remoteAddress: request.ip ?? '',
      }),
    },
    ...(config.logPretty
      ? {
          transport: {
            target: 'pino-pretty',
            options: { ignore: 'pid,hostname', singleLine: true, destination: stream.fd },
          },
        }
      : // Without a stream the logger writes to stdout itself, which takes less time.
        logTo === 'stderr' && { stream }),
  };
}

async function retryFailed({ checkpoints }: Services, workers: Workers, signal: AbortSignal): Promise<number> {
  return checkpoints.retryFailed(await workers.version(), signal);
}

/** Draws checkpoints that were made while nothing was drawn, if this server draws. */
async function drawEarlier(app: FastifyInstance, services: Services, signal: AbortSignal): Promise<void> {
  try {
    if (!services.graphics.enabled) await forgetCaughtUp(services.database);
    if (services.drawer === undefined) return;
    const scheduled = await drawEarlierCheckpoints(services, signal);
    if (scheduled > 0) app.log.info({ scheduled }, 'scheduled graphics of earlier checkpoints');
  } catch (error) {
    if (!signal.aborted)
      app.log.error({ err: error }, 'cannot schedule graphics of earlier checkpoints; will retry at the next start');
  }
}

/** Records where the server listens. A failure, for example on a full disk, does not prevent the server from running. */
function noteAddresses(app: FastifyInstance, config: Config): void {
  try {
    noteOrigins(config.dataDir, originsOf(config, portOf(app, config)), config.databaseUrl === undefined);
  } catch (error) {
    app.log.warn({ err: error }, 'cannot record the address of the server: commands cannot mint tokens for it');
  }
}

/** Waits for pending requests, but not indefinitely: a client that stopped reading must not delay the shutdown. */
async function closeApp(app: FastifyInstance, graceMs: number): Promise<void> {
  const closed = app.close();
  if (await within(closed, graceMs)) return closed;
  app.server.closeAllConnections();
  if (!(await within(closed, connectionsMs))) app.log.warn('pending requests did not end in time');
}

/** The separate server for `/metrics`; undefined if metrics are disabled or served on the port of the API. */
async function metricsServer(app: FastifyInstance, services: Services): Promise<FastifyInstance | undefined> {
  const { config } = services;
  if (!config.metrics) return undefined;
  const own = config.metricsPort === undefined ? undefined : Fastify({ forceCloseConnections: true, bodyLimit });
  if (own !== undefined) addSecurityHeaders(own.server);
  await serveMetrics(app, own ?? app, services);
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
  // After CORS, whose headers a page needs to read an error response.
  app.addHook('onRequest', (request, reply, done) => {
    if (ending)
      return sendError(
        new ApiError('Unavailable', { headers: { 'retry-after': '5', connection: 'close' } }),
        request,
        reply,
      );
    if (request.headers.host === undefined && request.raw.httpVersion === '1.1')
      return sendError(new ApiError('BadRequest'), request, reply);
    // Before the body is read: the path does not exist, whatever the body is.
    if (request.is404) return sendError(new ApiError('NotFound'), request, reply);
    return done();
  });
  // Other requests see a commit before it is synced. What they answer must not be lost either, so they wait for the same sync.
  app.addHook('onSend', (_request, _reply, payload, done) => {
    const { settling } = services.database;
    if (settling === undefined) done(null, payload);
    else
      settling.then(
        () => done(null, payload),
        (error: unknown) => done(error as Error),
      );
  });
  if (options.role !== 'worker') await wireApi(app, services, options);
  // Alive: the server responds. Ready: it also reaches the database and the stores.
  app.get('/health', () => ({ status: 'ok', version }));
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
  app.get('/health/ready', async (request, reply) => {
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
    // Response headers that browser scripts may read; one text, because the plugin would join a list for each response.
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
    ].join(', '),
    maxAge: 600,
    // Also answer OPTIONS requests that are no preflights; the alternative is a plain text error.
    strictPreflight: false,
  };
}

/** Warning for operators about jobs of each kind that no server runs. */
const unservedWarnings: Record<string, string> = {
  checkpoint: 'Checkpoints and uploaded baselines wait: no server of this installation has iTwin.js and makes them.',
  graphics: 'Drawings of checkpoints wait: no server of this installation has iTwin.js and draws (graphics.enabled).',
  derive: 'Forks and iModels from templates wait: no server of this installation has iTwin.js and makes them.',
  transferFiles:
    'Copies into other data centers wait: no server of this installation runs them (transfers.slots, jobs.here, workers).',
  transferCheckpoints:
    'Checkpoints of copies into other data centers wait: no server of this installation runs them (transfers.slots, jobs.here, workers).',
  deliver: 'Messages to webhooks wait: no server of this installation sends them (webhooks.here, jobs.here, workers).',
};

/** Additional fields of a readiness response. */
interface Details {
  warnings?: string[];
  /** Isolation level of the iTwin.js workers; absent if this server does not make checkpoints. */
  checkpoints?: { isolation: IsolationLevel };
}

/** Warnings about jobs that no server runs. They do not affect readiness, because restarting this server would not help. */
async function warningsOf({ jobs }: Services): Promise<string[]> {
  return (await jobs.unserved()).map(
    (kind) => unservedWarnings[kind] ?? `Jobs of kind ${kind} wait: no server of this installation runs them.`,
  );
}

/** The details available within `detailsMs`: a slow database or iTwin.js service only delays or omits details. */
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

async function wireApi(app: FastifyInstance, services: Services, options: ServerOptions): Promise<void> {
  await app.register(async (api) => registerRoutes(api, services, routes, options));
  await app.register(dataPlane, {
    blobs: services.blobs,
    uploads: services.uploads,
    changesets: services.changesets,
    links: services.signedLinks,
    containers: services.containers,
    addressLimits: services.addressLimits,
    downloads: new Downloads(services.config.downloads),
    shares: services.shares,
    stallMs: services.config.requests.uploadStallSeconds * 1000,
  });
  await app.register(signIn, { prefix: signInPath, services });
  let document: Promise<object> | undefined;
  app.get('/openapi.json', async (request) => {
    document ??= import('./api/document.ts').then(({ documentOfRoutes }) => documentOfRoutes(routes));
    return { ...(await document), servers: [{ url: baseUrlOf(request, services.config) }] };
  });
  // Relative if the path below which a proxy serves this server is unknown.
  const redirectTo = (place: string, request: FastifyRequest, reply: FastifyReply): FastifyReply => {
    const { publicUrl, trustProxy } = services.config;
    return reply.redirect(
      publicUrl !== undefined || trustProxy !== false
        ? `${baseUrlOf(request, services.config)}${place}`
        : place.slice(1),
    );
  };
  // People get the console; programs get the document of the API.
  app.get('/', (request, reply) =>
    redirectTo(wantsPage(request) ? `${consolePath}/` : '/docs/', request, reply.header('vary', 'accept')),
  );
  const page = documentationPage();
  const servePage = async (request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> => {
    const { status, headers, body } = await page(request.url);
    if (status === 404) throw new ApiError('NotFound');
    return reply.code(status).headers(headers).send(body);
  };
  // The page loads its assets by relative URLs, so its own URL needs the trailing slash.
  app.get('/docs', (request, reply) =>
    request.url.split('?', 1)[0]?.endsWith('/') === true
      ? servePage(request, reply)
      : redirectTo('/docs/', request, reply),
  );
  app.get('/docs/*', servePage);
  serveGuide(app, options.guideFolder);
  const origins = issuerOrigins(services.config);
  const viewerPage = new ViewerPage({ folder: options.viewerFolder, issuerOrigins: origins });
  viewerPage.serve(app);
  serveConsoleSettings(app, services, viewerPage);
  serveConsole(app, { folder: options.consoleFolder, issuerOrigins: origins });
}

/** The origin at which clients on this machine reach the server. */
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
