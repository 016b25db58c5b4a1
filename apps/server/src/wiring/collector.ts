import type { FastifyBaseLogger } from 'fastify';
import { removeOldAudit } from '../access/audit.ts';
import type { Seeds } from '../baselines/baselines.ts';
import { collect } from '../collector/collect.ts';
import { Collector } from '../collector/collector.ts';
import type { Config } from '../config.ts';
import type { Database } from '../db/database.ts';
import { returnFreeSpace } from '../db/sqlite/freeSpace.ts';
import { steadyClock } from '../operations/steadyClock.ts';
import type { DiskSpace } from '../storage/diskSpace.ts';
import type { Stores } from '../storage/stores.ts';
import type { Viewer } from '../viewer/viewer.ts';

const dayMs = 24 * 3_600_000;

/** Interval of the runs that also examine what no deletion has touched. */
const thoroughEveryMs = dayMs;

interface CollectorParts {
  database: Database;
  stores: Stores;
  space: DiskSpace;
  seeds: Seeds;
  viewer: Pick<Viewer, 'tidyTiles'>;
}

/** The collector, and the upkeep of disk and audit that runs with it. */
export function wireCollector(
  config: Config,
  { database, stores, space, seeds, viewer }: CollectorParts,
  log: FastifyBaseLogger,
): Collector {
  const { graceSeconds } = config.collector;
  const now = steadyClock(Math.max(config.signedLinkSeconds, graceSeconds) * 1000);
  // Elapsed time: an adjusted system clock must not postpone a thorough run.
  let thoroughAt = performance.now();
  return new Collector(async (signal) => {
    await space.makeRoom();
    await space.keepReserve();
    const thorough = performance.now() >= thoroughAt;
    if (thorough) thoroughAt = performance.now() + thoroughEveryMs;
    const { keepDays } = config.audit;
    if (keepDays > 0) await removeOldAudit(database.db, now() - keepDays * dayMs, signal);
    const collected = await collect(database, stores, {
      graceMs: graceSeconds * 1000,
      uploadLifeMs: config.signedLinkSeconds * 1000,
      groupLifeMs: config.changesetGroupHours * 3_600_000,
      seeds,
      now,
      thorough,
      signal,
    });
    await viewer.tidyTiles({ thorough, removed: collected.changesets + collected.blobs > 0 }, signal);
    if (database.writer !== undefined) await returnFreeSpace(database.writer, signal);
    return collected;
  }, log);
}
