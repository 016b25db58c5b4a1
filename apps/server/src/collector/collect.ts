import type { Database } from '../db/database.ts';
import { dropExpiredRequests } from '../idempotency/repeatableRequests.ts';
import { PastFailures } from '../operations/pastFailures.ts';
import { dropExpiredState } from '../signIn/state.ts';
import type { Stores } from '../storage/stores.ts';
import { deleteOrphanBaselines } from './baselines.ts';
import { deleteOrphanObjects, deleteReleasedBlobs, releaseOrphanBlobs } from './blobs.ts';
import { timeOutChangesetGroups } from './changesetGroups.ts';
import { deleteIModelsOfDeletedITwins, purgeIModels } from './iModels.ts';
import { purgeITwins } from './iTwins.ts';
import { checkOrphans } from './orphanChecks.ts';
import { deleteOrphans, requestOrphanChecks } from './orphans.ts';
import { chunk, timeOf, type CollectorOptions } from './step.ts';
import { deleteExcessUploads, endUploads, isAwaited } from './uploads.ts';

/** How much one run of the collector removed. */
export interface Collected {
  iModels: number;
  iTwins: number;
  histories: number;
  segments: number;
  changesets: number;
  blobs: number;
  uploads: number;
  /** Changeset groups that timed out. */
  groups: number;
  /** Expired answers that were kept for repeated requests. */
  requests: number;
  /** Expired sessions, codes and tokens of the embedded OpenID Provider. */
  signIns: number;
  checkpoints: number;
  modelFiles: number;
  blocks: number;
  /** Rows that nothing referred to, found by a thorough run: they were left over when something else failed. */
  orphans: number;
  orphanObjects: number;
}

/**
 * Removes what nothing refers to, in small transactions that can each be repeated: rows of deleted iModels, histories that nothing
 * uses, changesets of orphaned segments above every head that can see them, segments without a history, and, after a grace
 * period, the bytes. The foreign keys are the only reference counts. What lost a reference is noted by triggers, so a run costs as
 * much as was deleted; a thorough run also reads everything. This function has the order of the steps; each kind of row or object
 * has a file beside it.
 */
export async function collect(database: Database, stores: Stores, options: CollectorOptions): Promise<Collected> {
  const collected: Collected = {
    iModels: 0,
    iTwins: 0,
    histories: 0,
    segments: 0,
    changesets: 0,
    blobs: 0,
    uploads: 0,
    groups: 0,
    requests: 0,
    signIns: 0,
    checkpoints: 0,
    modelFiles: 0,
    blocks: 0,
    orphans: 0,
    orphanObjects: 0,
  };
  await deleteIModelsOfDeletedITwins(database, options);
  collected.iModels = await purgeIModels(database, options);
  collected.iTwins = await purgeITwins(database, options);
  collected.uploads = await endUploads(database, stores, options);
  collected.groups = await timeOutChangesetGroups(database, options);
  collected.requests = await deleteExpired(() => dropExpiredRequests(database, chunk), options);
  collected.signIns = await deleteExpired(() => dropExpiredState(database.db, chunk), options);
  if (options.thorough) {
    const before = timeOf(options) - options.uploadLifeMs;
    collected.orphans += await deleteOrphans(database, before, options.signal);
    collected.orphans += await deleteOrphanBaselines(database, options);
    await requestOrphanChecks(database, before, options.signal);
  }
  await checkOrphans(database, options, collected);
  if (options.thorough) collected.orphans += await releaseOrphanBlobs(database, options);
  await collectStores(database, stores, options, collected);
  return collected;
}

/** Deletes expired rows, `chunk` at a time. @returns how many */
async function deleteExpired(drop: () => Promise<number>, { signal }: CollectorOptions): Promise<number> {
  let deleted = 0;
  for (;;) {
    signal?.throwIfAborted();
    const count = await drop();
    deleted += count;
    if (count < chunk) return deleted;
  }
}

/** Collects in each store. A store that cannot be reached, or an object that cannot be deleted, does not stop the others. */
async function collectStores(
  database: Database,
  stores: Stores,
  options: CollectorOptions,
  collected: Collected,
): Promise<void> {
  const { signal, uploadLifeMs, thorough } = options;
  const failures = new PastFailures(signal);
  for (const store of stores.all) {
    await failures.pass(async () => {
      collected.blobs += await deleteReleasedBlobs(database, store, options);
    });
    await failures.pass(async () => {
      collected.uploads += await deleteExcessUploads(database, store, options);
    });
    await failures.pass(() =>
      store.dropUnfinished(timeOf(options) - uploadLifeMs, {
        signal,
        isAwaited: (upload) => isAwaited(database.db, upload),
      }),
    );
    if (thorough)
      await failures.pass(async () => {
        collected.orphanObjects += await deleteOrphanObjects(database, store, options);
      });
  }
  failures.end();
}
