import type { FastifyInstance } from 'fastify';
import type * as Prometheus from 'prom-client';
import type { Services } from '../services.ts';
import type { BackendUsage } from '../viewer/backend.ts';
import type { StoredTiles } from '../viewer/storedTiles.ts';
import type { Viewer } from '../viewer/viewer.ts';

/** Upper bounds of the histogram buckets, seconds. A clone is accepted after about 2 ms. */
const buckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

/**
 * Serves `/metrics` for Prometheus: requests by operation, jobs by kind and state, viewers, and the process itself. The client of
 * Prometheus is loaded only here: it takes 8 MiB.
 * @param app the application whose requests are counted
 * @param on the application that serves `/metrics`: the same one, or a separate one
 */
export async function serveMetrics(
  app: FastifyInstance,
  on: FastifyInstance,
  { database: { db }, viewer }: Pick<Services, 'database' | 'viewer'>,
): Promise<void> {
  const client = await import('prom-client');
  const { collectDefaultMetrics, Gauge, Histogram, Registry } = client;
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
  if (viewer.available) viewerMetrics(client, registry, viewer);
  app.addHook('onResponse', async (request, reply) => {
    // The operation or the route pattern, never the URL itself: a label must have a fixed set of values.
    const { config, url = 'none' } = request.routeOptions;
    const { operationId } = config as { operationId?: string };
    requests.observe({ operation: operationId ?? url, status: reply.statusCode }, reply.elapsedTime / 1000);
  });
  on.get('/metrics', async (_request, reply) => reply.type(registry.contentType).send(await registry.metrics()));
}

/** What the back ends of viewers use, and where tiles came from. */
function viewerMetrics({ Counter, Gauge }: typeof Prometheus, registry: Prometheus.Registry, viewer: Viewer): void {
  const registers = [registry];
  const total = (read: (usage: BackendUsage) => number): number =>
    viewer.backends.reduce((sum, { usage }) => sum + (usage === undefined ? 0 : read(usage)), 0);
  const gauge = (name: string, help: string, read: () => number): void => {
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(read());
      },
    });
  };
  gauge('offshoot_viewer_processes', 'Processes that answer viewers and run now.', () =>
    total(({ running }) => Number(running)),
  );
  gauge('offshoot_viewer_open_checkpoints', 'Checkpoints that the view back ends have open.', () =>
    total(({ checkpoints }) => checkpoints),
  );
  gauge('offshoot_viewer_memory_bytes', 'Resident memory of the view back ends.', () =>
    total(({ memoryBytes }) => memoryBytes),
  );
  gauge('offshoot_viewer_answer_bytes', 'Answers to viewers that are read or sent now.', () => viewer.memory.bytes);
  gauge('offshoot_viewer_kept_tile_bytes', 'Size of the kept tiles.', () => viewer.tiles.bytes);
  const counter = (name: string, help: string, read: () => number): void => {
    new Counter({
      name,
      help,
      registers,
      collect() {
        this.reset();
        this.inc(read());
      },
    });
  };
  counter('offshoot_viewer_starts_total', 'How often a view back end was started.', () =>
    total(({ starts }) => starts),
  );
  counter('offshoot_viewer_made_tiles_total', 'Tiles that a view back end made.', () => viewer.counts.made);
  counter('offshoot_viewer_kept_tiles_total', 'Tiles that were kept from an earlier view.', () => viewer.counts.kept);
  const stored = (read: (counts: StoredTiles['counts']) => number): number =>
    [...viewer.storedTiles.values()].reduce((sum, { counts }) => sum + read(counts), 0);
  counter('offshoot_viewer_found_tiles_total', 'Tiles that this server took from the store.', () =>
    stored(({ found }) => found),
  );
  counter('offshoot_viewer_stored_tiles_total', 'Tiles that this server wrote to the store.', () =>
    stored(({ stored }) => stored),
  );
  counter('offshoot_viewer_dropped_tiles_total', 'Tiles that this server made and did not write to the store.', () =>
    stored(({ dropped }) => dropped),
  );
}
