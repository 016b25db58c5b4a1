import type { Database, Tx } from '../db/database.ts';
import type { Engine } from '../db/engine.ts';
import type { Seeds } from '../baselines/baselines.ts';
import { deleteGraphicsOfBaseline } from '../graphics/rows.ts';
import { releaseBlobs } from '../storage/blobs.ts';
import { orphanIds } from './orphans.ts';
import { chunk, timeOf, unlessInUse, type CollectorOptions } from './step.ts';

/** Deletes baselines that no iModel uses, although no deletion of an iModel led to them. @returns how many were found */
export async function deleteOrphanBaselines(database: Database, options: CollectorOptions): Promise<number> {
  const { db, engine } = database;
  const { seeds, uploadLifeMs, signal } = options;
  const ids = await orphanIds(database, 'baseline', timeOf(options) - uploadLifeMs, chunk);
  for (const id of ids) {
    signal?.throwIfAborted();
    await unlessInUse(() =>
      db
        .transaction()
        .execute(async (tx) => deleteUnusedBaseline(tx, engine, id, seeds))
        .then(() => 1),
    );
  }
  return ids.length;
}

/** Deletes a baseline, unless an iModel or a transfer uses it or it is a seed, and releases its file. */
export async function deleteUnusedBaseline(tx: Tx, engine: Engine, id: string, seeds: Seeds): Promise<void> {
  if ([...seeds.values()].includes(id)) return;
  // The lock comes first, so that a concurrent transfer either is found below or fails because the baseline is deleted.
  const found = tx.selectFrom('baseline').select('blob_id').where('id', '=', id);
  const baseline = await (engine === 'postgres' ? found.forUpdate() : found).executeTakeFirst();
  const inUse =
    (await tx.selectFrom('imodel').select('id').where('baseline_id', '=', id).limit(1).executeTakeFirst()) ??
    (await tx
      .selectFrom('transfer')
      .select('imodel_id')
      .where((eb) => eb.or([eb('baseline_id', '=', id), eb('from_baseline_id', '=', id)]))
      .limit(1)
      .executeTakeFirst());
  if (baseline === undefined || inUse !== undefined) return;
  await tx.deleteFrom('checkpoint').where('baseline_id', '=', id).execute();
  await deleteGraphicsOfBaseline(tx, id);
  await tx.deleteFrom('baseline').where('id', '=', id).execute();
  await releaseBlobs(tx, [baseline.blob_id], Date.now());
}
