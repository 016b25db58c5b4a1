import path from 'node:path';
import pino from 'pino';
import { loadConfig } from '../../apps/server/src/config.ts';
import { Jobs } from '../../apps/server/src/operations/jobs.ts';
import type { Services } from '../../apps/server/src/services.ts';
import { openServices } from '../../apps/server/src/wiring/services.ts';
import { attempt, timed, type Budget } from '../common.ts';
import type { Installation } from '../installation.ts';
import type { Content } from './data.ts';
import { idOf } from './ids.ts';
import { jobKind } from './models.ts';

const jobsToRun = 20;
const deletedITwins = 20;
const jobsWithinMs = 60_000;

/** Measures what a server does by itself: runs of the collector, and claims of jobs. */
export async function measureUpkeep(
  { dataDir }: Installation<Content>,
  budget: Budget,
  record: (name: string, ms: number) => void,
): Promise<void> {
  const log = pino({ level: 'error' });
  const services = await openServices(loadConfig({}, { file: path.join(dataDir, 'bench.json'), env: {} }), log);
  const collect = async (name: string): Promise<unknown> =>
    budget.allows(name, 1) && attempt(name, async () => record(name, await timed(() => services.collector.runOnce())));
  try {
    await attempt('jobs', async () => record('one job, with all others due', await perJob(services, log)));
    await collect('collector: first run, thorough (10 × the work)');
    await collect('collector: nothing to do');
    const deleted_at = Date.now() - 1000;
    const { db } = services.database;
    const iTwins = Array.from({ length: deletedITwins }, (_, n) => idOf('iTwin', n));
    await db.updateTable('itwin').set({ deleted_at }).where('id', 'in', iTwins).execute();
    await collect(`collector: ${deletedITwins} deleted iTwins`);
    await db.updateTable('imodel').set({ deleted_at }).where('id', '=', idOf('iModel', 7)).execute();
    await collect('collector: one deleted iModel');
  } finally {
    await services.close();
  }
}

/** Milliseconds from the start of an engine with one slot, divided by the number of jobs that ran. */
async function perJob({ database }: Services, log: pino.Logger): Promise<number> {
  const jobs = new Jobs(database, log, { poll: 10 });
  const { promise, resolve } = Promise.withResolvers<void>();
  let ran = 0;
  jobs.handle(1, [
    {
      kind: jobKind,
      attempts: 1,
      backoffMs: () => 0,
      run: async () => async () => {
        if (++ran === jobsToRun) resolve();
      },
      onExhausted: async () => undefined,
    },
  ]);
  const began = performance.now();
  jobs.start();
  const timer = setTimeout(resolve, jobsWithinMs);
  try {
    await promise;
    return (performance.now() - began) / ran;
  } finally {
    clearTimeout(timer);
    await jobs.stop(1000);
  }
}
