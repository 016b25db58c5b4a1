import { randomUUID } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { raiseBriefcaseCounter } from '../briefcases/counter.ts';
import type { Generator, MadeFile, Retries } from '../checkpoints/generate.ts';
import type { ModelFiles } from '../checkpoints/modelFiles.ts';
import { FileFaultError } from '../checkpoints/itwinjs/workerProcess.ts';
import type { Checkpoints } from '../checkpoints/checkpoints.ts';
import type { Database, Tx } from '../db/database.ts';
import type { BlobTable, IModelTable } from '../db/schema.ts';
import { lockIModel } from '../db/statements/lockIModel.ts';
import { raiseCreated } from '../events/events.ts';
import { dropBaseline } from '../collector/collect.ts';
import { failCreation, type CreationFailure } from '../imodels/failedCreation.ts';
import type { Effect, JobHandler, RunningJob } from '../operations/jobs.ts';
import { accountOfITwin } from '../quotas/accounts.ts';
import type { Quotas } from '../quotas/quotas.ts';
import type { BlobStore, CallOptions } from '../storage/blobStore.ts';
import type { Blobs } from '../storage/blobs.ts';
import { beginTransfer } from '../transfer/begin.ts';
import type { Seeds } from '../baselines/baselines.ts';
import { baselineView } from './copyIModel.ts';
import { deriveJob, type DeriveWork } from './derive.ts';
import { requirePermitted } from './stillPermitted.ts';

interface Parts {
  database: Database;
  blobs: Blobs;
  files: ModelFiles;
  checkpoints: Checkpoints;
  generator: Generator;
  seeds: Seeds;
  quotas: Quotas;
  retries: Retries;
}

/** Handles what is left to do for a fork or a templated iModel once it was accepted. */
export function deriveHandler(parts: Parts): JobHandler {
  return {
    kind: deriveJob,
    ...parts.retries,
    run: (job) => run(parts, job),
    confirm: (tx, { subjectId, payload }) => requirePermitted(tx, subjectId, (payload as DeriveWork).order),
    onExhausted: (tx, { subjectId }, reason) => fail(parts, tx, subjectId, 'failed', reason),
  };
}

async function run(parts: Parts, job: RunningJob): Promise<Effect> {
  const { generator, database, blobs } = parts;
  const work = job.payload as DeriveWork;
  const imodel = await database.db
    .selectFrom('imodel')
    .selectAll()
    .where('id', '=', job.subjectId)
    .where('deleted_at', 'is', null)
    .executeTakeFirst();
  if (imodel === undefined || imodel.state === 'initialized') return async () => undefined;
  await requirePermitted(database.db, imodel.id, work.order);
  const { data_center } = await database.db
    .selectFrom('itwin')
    .select('data_center')
    .where('id', '=', imodel.itwin_id)
    .executeTakeFirstOrThrow();
  const store = blobs.stores.ofDataCenter(data_center);
  const want = { purpose: work.squash ? 'baseline' : 'checkpoint', countMissingGuids: work.wantsGuids } as const;
  const effect = generator.withFile(imodel, imodel.head_index, want, job, undefined, async (made) => {
    if (made.missingGuids > 0) {
      const reason = `${made.missingGuids} ${made.missingGuids === 1 ? 'element has' : 'elements have'} no FederationGuid.`;
      return (tx: Tx) => fail(parts, tx, imodel.id, 'mainIModelIsMissingFederationGuids', reason);
    }
    const effect = await (work.squash
      ? squash(parts, imodel, store, made, job)
      : keep(parts, imodel, store, work, made, job));
    return async (tx: Tx) => {
      // The source may not have known what its file holds: one that was uploaded where nothing could read it.
      await raiseBriefcaseCounter(tx, imodel.id, made.highestBriefcaseId + 1);
      await effect(tx);
    };
  });
  return effect.catch(async (error: unknown) => {
    // What this server's iTwin.js cannot read is not looked through, as on a server without it. A new baseline cannot be made so.
    if (work.squash || !(error instanceof FileFaultError)) throw error;
    const source = await generator.storeOf(imodel);
    return (tx: Tx) => goOn(tx, imodel, source, store, work);
  });
}

/** The file becomes the baseline of the new iModel, which then sees no changesets. */
async function squash(
  { database: { engine, db }, files, seeds, quotas }: Parts,
  imodel: IModelTable,
  store: BlobStore,
  made: MadeFile,
  options: CallOptions,
): Promise<Effect> {
  const { size } = await stat(made.path);
  const account = await accountOfITwin(db, imodel.itwin_id);
  await quotas.requireBytes(db, account, size);
  const key = randomUUID();
  const { sha256 } = await store.put(key, createReadStream(made.path, { highWaterMark: 1 << 20 }), size, options);
  const now = Date.now();
  const blob: BlobTable = {
    id: randomUUID(),
    store: store.id,
    key,
    size,
    sha256,
    state: 'stored',
    created_at: now,
    released_at: null,
    ...account,
  };
  const stored = await files.store(store, account, made.path, made, { blobId: blob.id, row: blob }, options);
  return async (tx) => {
    const baselineId = randomUUID();
    const wanted = await lockIModel(tx, engine, imodel.id, 'push');
    await tx
      .insertInto('blob')
      // Deleted meanwhile: nothing will refer to the file, unless a block of another one lies in it already.
      .values(wanted === undefined ? { ...blob, released_at: now } : blob)
      .onConflict((conflict) => conflict.doNothing())
      .execute();
    if (wanted === undefined) return;
    await tx
      .insertInto('baseline')
      .values({ id: baselineId, blob_id: blob.id, state: 'initialized', created_at: now })
      .execute();
    await insertMade(
      tx,
      { baseline_id: baselineId, segment_id: null, changeset_index: 0 },
      await files.record(tx, stored),
    );
    await finish(tx, imodel, { baseline_id: baselineId, ...baselineView });
    await dropBaseline(tx, engine, imodel.baseline_id, seeds);
  };
}

/**
 * The history stays; the file that was looked through is the checkpoint of its last changeset, if that has none. What lies in
 * another data center has still to come over.
 */
async function keep(
  { database: { engine, db }, files, checkpoints, generator }: Parts,
  imodel: IModelTable,
  store: BlobStore,
  work: DeriveWork,
  made: MadeFile,
  options: CallOptions,
): Promise<Effect> {
  const place = await checkpoints.vacantSlot(imodel, imodel.head_index);
  const source = await generator.storeOf(imodel);
  const stored =
    place === undefined
      ? undefined
      : await files.store(source, await accountOfITwin(db, imodel.itwin_id), made.path, made, made.whole, options);
  return async (tx) => {
    // Deleted meanwhile: what was stored is named by nothing, and goes with the collector.
    if ((await lockIModel(tx, engine, imodel.id, 'push')) === undefined) return;
    if (
      place !== undefined &&
      stored !== undefined &&
      (await checkpoints.vacantSlot(imodel, imodel.head_index, tx)) !== undefined
    )
      await insertMade(tx, place, await files.record(tx, stored));
    await goOn(tx, imodel, source, store, work);
  };
}

/** What is left for a fork with history: nothing within one store, else the copy. */
async function goOn(
  tx: Tx,
  imodel: IModelTable,
  source: BlobStore,
  store: BlobStore,
  { order }: DeriveWork,
): Promise<void> {
  if (source === store) await finish(tx, imodel, {});
  else await beginTransfer(tx, imodel, store, order);
}

async function insertMade(
  tx: Tx,
  place: { baseline_id: string | null; segment_id: string | null; changeset_index: number },
  fileId: string,
): Promise<void> {
  const now = Date.now();
  await tx
    .insertInto('checkpoint')
    .values({
      id: randomUUID(),
      ...place,
      state: 'successful',
      file_id: fileId,
      applied: 0,
      to_apply: 0,
      failure_reason: null,
      created_at: now,
      finished_at: now,
    })
    .execute();
}

async function finish(tx: Tx, imodel: IModelTable, changes: Partial<IModelTable>): Promise<void> {
  await tx
    .updateTable('imodel')
    .set({ ...changes, state: 'initialized' })
    .where('id', '=', imodel.id)
    .execute();
  await tx
    .updateTable('operation')
    .set({ state: 'successful', finished_at: Date.now() })
    .where('imodel_id', '=', imodel.id)
    .execute();
  await raiseCreated(tx, imodel);
}

async function fail(
  { database: { engine }, blobs, seeds }: Parts,
  tx: Tx,
  imodelId: string,
  state: CreationFailure['state'],
  reason: string,
): Promise<void> {
  const imodel = await tx
    .selectFrom('imodel as m')
    .innerJoin('itwin as i', 'i.id', 'm.itwin_id')
    .select(['m.baseline_id', 'i.data_center'])
    .where('m.id', '=', imodelId)
    .executeTakeFirst();
  if (imodel === undefined) return;
  await failCreation(tx, imodelId, {
    state,
    reason,
    seedId: seeds.get(blobs.stores.ofDataCenter(imodel.data_center).id),
  });
  await dropBaseline(tx, engine, imodel.baseline_id, seeds);
}
