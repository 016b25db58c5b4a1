import type * as OpenTelemetry from '@opentelemetry/api';
import type { Attributes, Context, Tracer } from '@opentelemetry/api';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { Config } from '../config.ts';
import { version } from '../version.ts';

/** A running export of spans. */
export interface Exporting {
  /** Sends the remaining spans. */
  stop(): Promise<void>;
}

type Api = typeof OpenTelemetry;

/** Loaded with the first exporter: it has 95 modules, and most servers export no spans. */
let api: Api | undefined;

/** How long the shutdown of a server waits for an unreachable collector. */
const stopWithinMs = 2000;

/**
 * Exports spans over OTLP to the configured collector. Undefined if none is configured; then the SDK is not loaded and no
 * spans are recorded. There is one exporter per process: a second server in the process shares it.
 */
export async function exportTraces({
  tracesUrl,
  tracesRatio,
}: Pick<Config, 'tracesUrl' | 'tracesRatio'>): Promise<Exporting | undefined> {
  if (tracesUrl === undefined) return undefined;
  const [
    loaded,
    sdk,
    { OTLPTraceExporter },
    { AsyncLocalStorageContextManager },
    { W3CTraceContextPropagator },
    { defaultResource, resourceFromAttributes },
  ] = await Promise.all([
    import('@opentelemetry/api'),
    import('@opentelemetry/sdk-trace'),
    import('@opentelemetry/exporter-trace-otlp-http'),
    import('@opentelemetry/context-async-hooks'),
    import('@opentelemetry/core'),
    import('@opentelemetry/resources'),
  ]);
  const provider = new sdk.TracerProvider({
    resource: defaultResource().merge(
      resourceFromAttributes({ 'service.name': 'offshoot', 'service.version': version }),
    ),
    sampler: new sdk.ParentBasedSampler({ root: new sdk.TraceIdRatioBasedSampler(tracesRatio) }),
    spanProcessors: [
      new sdk.BatchSpanProcessor({ exporter: new OTLPTraceExporter({ url: tracesUrl, timeoutMillis: stopWithinMs }) }),
    ],
  });
  api = loaded;
  const { context, propagation, trace } = api;
  trace.setGlobalTracerProvider(provider);
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  propagation.setGlobalPropagator(new W3CTraceContextPropagator());
  return {
    stop: async () => {
      // An unreachable collector loses spans, but must not fail the shutdown.
      await provider.shutdown().catch(() => undefined);
      trace.disable();
      context.disable();
      propagation.disable();
    },
  };
}

const tracerOf = ({ trace }: Api): Tracer => trace.getTracer('offshoot', version);

/** Runs work in a child span of the active one; only the work if no spans are exported. */
export async function traced<T>(
  name: string,
  attributes: Attributes,
  work: () => Promise<T>,
  { parent, kind = 'INTERNAL' }: { parent?: Context | undefined; kind?: keyof Api['SpanKind'] } = {},
): Promise<T> {
  if (api === undefined) return work();
  const { context, SpanKind: kinds, SpanStatusCode } = api;
  const options = { attributes, kind: kinds[kind] };
  return tracerOf(api).startActiveSpan(name, options, parent ?? context.active(), async (span) => {
    try {
      return await work();
    } catch (error) {
      span.recordException(error as Error);
      span.setStatus({ code: SpanStatusCode.ERROR });
      throw error;
    } finally {
      span.end();
    }
  });
}

/** The active span as `traceparent`, for the job that continues it; null if there is none. */
export function currentTrace(): string | null {
  const copier: { traceparent?: string } = {};
  api?.propagation.inject(api.context.active(), copier);
  return copier.traceparent ?? null;
}

/** The context that a job continues; undefined for the active one. */
export function continuing(traceparent: string | null): Context | undefined {
  return traceparent === null ? undefined : api?.propagation.extract(api.context.active(), { traceparent });
}

/** Trace id and span id for log lines, which link logs and traces. */
export function traceOfLog(): { traceId?: string; spanId?: string } {
  const span = api?.trace.getActiveSpan()?.spanContext();
  return span === undefined ? {} : { traceId: span.traceId, spanId: span.spanId };
}

/** Records one span per request, named after its operation, as a child of the client's `traceparent`. */
export function traceRequests(app: FastifyInstance): void {
  if (api === undefined) throw new Error('requests are traced only while spans are exported');
  const { context, propagation, SpanKind: kinds, SpanStatusCode, trace } = api;
  const tracer = tracerOf(api);
  const active = new WeakMap<FastifyRequest, Context>();
  app.addHook('onRequest', (request, _reply, done) => {
    const parent = propagation.extract(context.active(), request.headers);
    // Without the query: the signature of a link is a credential.
    const attributes = { 'http.request.method': request.method, 'http.route': request.routeOptions.url ?? 'none' };
    const { operationId } = request.routeOptions.config as { operationId?: string };
    const span = tracer.startSpan(
      operationId ?? `${request.method} ${attributes['http.route']}`,
      { kind: kinds.SERVER, attributes },
      parent,
    );
    const within = trace.setSpan(parent, span);
    active.set(request, within);
    context.with(within, done);
  });
  // The body arrives in events of the connection, outside the context of the request.
  app.addHook('preHandler', (request, _reply, done) => context.with(active.get(request) ?? context.active(), done));
  app.addHook('onResponse', (request, reply, done) => {
    const within = active.get(request);
    const span = within === undefined ? undefined : trace.getSpan(within);
    span?.setAttribute('http.response.status_code', reply.statusCode);
    if (reply.statusCode >= 500) span?.setStatus({ code: SpanStatusCode.ERROR });
    span?.end();
    done();
  });
}
