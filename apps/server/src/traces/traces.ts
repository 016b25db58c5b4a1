import {
  context,
  propagation,
  SpanKind,
  SpanStatusCode,
  trace,
  type Attributes,
  type Context,
} from '@opentelemetry/api';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { Config } from '../config.ts';
import { version } from '../version.ts';

/** Exports what the functions below record, until it is stopped. */
export interface Exporting {
  /** Sends what is left. */
  stop(): Promise<void>;
}

/** How long the end of a server waits for a collector that does not take its spans. */
const stopWithinMs = 2000;

/**
 * Sends spans to the collector that the configuration names, over OTLP; undefined where it names none, and then neither is the
 * SDK loaded nor anything recorded. One for a process: a second server in it shares the first one's.
 */
export async function exportTraces({
  tracesUrl,
  tracesRatio,
}: Pick<Config, 'tracesUrl' | 'tracesRatio'>): Promise<Exporting | undefined> {
  if (tracesUrl === undefined) return undefined;
  const [
    sdk,
    { OTLPTraceExporter },
    { AsyncLocalStorageContextManager },
    { W3CTraceContextPropagator },
    { defaultResource, resourceFromAttributes },
  ] = await Promise.all([
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
  trace.setGlobalTracerProvider(provider);
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  propagation.setGlobalPropagator(new W3CTraceContextPropagator());
  return {
    stop: async () => {
      // A collector that is away costs spans, never the end of a server.
      await provider.shutdown().catch(() => undefined);
      trace.disable();
      context.disable();
      propagation.disable();
    },
  };
}

const tracer = () => trace.getTracer('offshoot', version);

/** Does some work in a span of its own, below the one that is active. Costs next to nothing where nothing is exported. */
export async function traced<T>(
  name: string,
  attributes: Attributes,
  work: () => Promise<T>,
  parent: Context = context.active(),
  kind: SpanKind = SpanKind.INTERNAL,
): Promise<T> {
  return tracer().startActiveSpan(name, { attributes, kind }, parent, async (span) => {
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

/** The active span as `traceparent` text, to go on from in a job; null where there is none. */
export function currentTrace(): string | null {
  const copier: { traceparent?: string } = {};
  propagation.inject(context.active(), copier);
  return copier.traceparent ?? null;
}

/** What a job goes on from. */
export function continuing(traceparent: string | null): Context {
  return traceparent === null ? context.active() : propagation.extract(context.active(), { traceparent });
}

/** Trace and span of a log line, so that one is found from the other. */
export function traceOfLog(): { traceId?: string; spanId?: string } {
  const span = trace.getActiveSpan()?.spanContext();
  return span === undefined ? {} : { traceId: span.traceId, spanId: span.spanId };
}

/** One span for each request, named by its operation; it goes on from the client's `traceparent`. */
export function traceRequests(app: FastifyInstance): void {
  const active = new WeakMap<FastifyRequest, Context>();
  app.addHook('onRequest', (request, _reply, done) => {
    const parent = propagation.extract(context.active(), request.headers);
    // Without the query: signed links are as good as keys.
    const attributes = { 'http.request.method': request.method, 'http.route': request.routeOptions.url ?? 'none' };
    const { operationId } = (request.routeOptions.schema ?? {}) as { operationId?: string };
    const span = tracer().startSpan(
      operationId ?? `${request.method} ${attributes['http.route']}`,
      { kind: SpanKind.SERVER, attributes },
      parent,
    );
    const within = trace.setSpan(parent, span);
    active.set(request, within);
    context.with(within, done);
  });
  // A body comes in events of its connection, outside the request's context.
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
