import type { FastifyInstance } from 'fastify';
import type { Database } from '../db/database.ts';

/** Upper bounds of the histogram buckets, seconds. A clone is accepted after about 2 ms. */
const buckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

/**
 * Serves `/metrics` for Prometheus: requests by operation, jobs by kind and state, and the process itself. The client of
 * Prometheus is loaded only here: it takes 8 MiB.
 * @param app the application whose requests are counted
 * @param on the application that serves `/metrics`: the same one, or a separate one
 */
export async function serveMetrics(
  app: FastifyInstance,
  on: FastifyInstance,
  { db }: Pick<Database, 'db'>,
): Promise<void> {
  const { collectDefaultMetrics, Gauge, Histogram, Registry } = await import('prom-client');
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const requests = new Histogram({
    name: 'offshoot_request_duration_seconds',
    help: 'Time of API and storage requests, by operation and status.',
    labelNames: ['operation', 'status'],
    buckets,
    registers: [registry],
  });
  new Gauge({
    name: 'offshoot_jobs',
    help: 'Jobs in the database, by kind and state.',
    labelNames: ['kind', 'state'],
    registers: [registry],
    async collect() {
      this.reset();
      const rows = await db
        .selectFrom('job')
        .select((eb) => ['kind', 'state', eb.fn.countAll<number>().as('count')])
        .groupBy(['kind', 'state'])
        .execute();
      for (const { kind, state, count } of rows) this.set({ kind, state }, Number(count));
    },
  });
  app.addHook('onResponse', async (request, reply) => {
    // The operation or the route pattern, never the URL itself: a label must have a fixed set of values.
    const { config, url = 'none' } = request.routeOptions;
    const { operationId } = config as { operationId?: string };
    requests.observe({ operation: operationId ?? url, status: reply.statusCode }, reply.elapsedTime / 1000);
  });
  on.get('/metrics', async (_request, reply) => reply.type(registry.contentType).send(await registry.metrics()));
}
