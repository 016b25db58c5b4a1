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
import { deleteUnusedBaseline } from '../collector/baselines.ts';
import { failCreation, type CreationFailure } from '../imodels/failedCreation.ts';
import type { Effect, JobHandler, RunningJob } from '../operations/jobs.ts';
import { accountOfITwin } from '../quotas/accounts.ts';
import type { Quotas } from '../quotas/quotas.ts';
import type { BlobStore, CallOptions } from '../storage/blobStore.ts';
import type { Blobs } from '../storage/blobs.ts';
import { beginTransfer, type TransferOrder } from '../transfer/begin.ts';
import type { Seeds } from '../baselines/baselines.ts';
import { baselineView } from './copyIModel.ts';
import { requirePermitted } from './stillPermitted.ts';

/** Kind of the job that makes the baseline of a fork or a templated iModel, or searches it for FederationGuids. */
export const deriveJob = 'derive';

/** The payload of such a job, as it is stored in the database. */
export interface DerivePayload {
  /** The changesets become part of a new baseline. */
  squash: boolean;
  /** Every element must have a FederationGuid. */
  wantsGuids: boolean;
  /** For the transfer that follows if the target is in another data center, and for checking permissions again. */
  order: TransferOrder;
}

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

/** Completes an accepted fork or templated iModel. */
export function deriveHandler(parts: Parts): JobHandler {
  return {
    kind: deriveJob,
    ...parts.retries,
    run: (job) => run(parts, job),
    confirm: (tx, { subjectId, payload }) => requirePermitted(tx, subjectId, (payload as DerivePayload).order),
    onExhausted: (tx, { subjectId }, reason) => fail(parts, tx, subjectId, 'failed', reason),
  };
}

async function run(parts: Parts, job: RunningJob): Promise<Effect> {
  const { generator, database, blobs } = parts;
  const work = job.payload as DerivePayload;
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
      : keepHistory(parts, imodel, store, work, made, job));
    return async (tx: Tx) => {
      // The source's counter may be too low, if its baseline was uploaded to an installation that could not read it.
      await raiseBriefcaseCounter(tx, imodel.id, made.highestBriefcaseId + 1);
      await effect(tx);
    };
  });
  return effect.catch(async (error: unknown) => {
    // A file that this version of iTwin.js cannot read is not searched, as on a server without iTwin.js. Only a new
    // baseline depends on reading it.
    if (work.squash || !(error instanceof FileFaultError)) throw error;
    const source = await generator.storeOf(imodel);
    return (tx: Tx) => transferOrFinish(tx, imodel, source, store, work);
  });
}

/** Stores the file as the baseline of the new iModel, which then has no changesets. */
async function squash(
  { database: { engine, db }, files, checkpoints, seeds, quotas }: Parts,
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
    const target = await lockIModel(tx, engine, imodel.id, 'push');
    await tx
      .insertInto('blob')
      // If the iModel was deleted meanwhile, nothing refers to the file, unless a block of another file is stored in it.
      .values(target === undefined ? { ...blob, released_at: now } : blob)
      .onConflict((conflict) => conflict.doNothing())
      .execute();
    if (target === undefined) return;
    await tx
      .insertInto('baseline')
      .values({ id: baselineId, blob_id: blob.id, state: 'initialized', created_at: now })
      .execute();
    const slot = { baseline_id: baselineId, segment_id: null, changeset_index: 0 };
    await insertCheckpoint(tx, slot, await files.record(tx, stored));
    await checkpoints.graphics.checkpointMade(tx, slot, payerOf(imodel));
    await finish(tx, imodel, { baseline_id: baselineId, ...baselineView });
    await deleteUnusedBaseline(tx, engine, imodel.baseline_id, seeds);
  };
}

/**
 * Keeps the history. The file that was searched becomes the checkpoint of its last changeset if that has none. A transfer
 * follows if the source is in another data center.
 */
async function keepHistory(
  { database: { engine, db }, files, checkpoints, generator }: Parts,
  imodel: IModelTable,
  store: BlobStore,
  work: DerivePayload,
  made: MadeFile,
  options: CallOptions,
): Promise<Effect> {
  const slot = await checkpoints.vacantSlot(imodel, imodel.head_index);
  const source = await generator.storeOf(imodel);
  const stored =
    slot === undefined
      ? undefined
      : await files.store(source, await accountOfITwin(db, imodel.itwin_id), made.path, made, made.whole, options);
  return async (tx) => {
    // If the iModel was deleted meanwhile, nothing refers to the stored blocks and the collector deletes them.
    if ((await lockIModel(tx, engine, imodel.id, 'push')) === undefined) return;
    if (
      slot !== undefined &&
      stored !== undefined &&
      (await checkpoints.vacantSlot(imodel, imodel.head_index, tx)) !== undefined
    ) {
      await insertCheckpoint(tx, slot, await files.record(tx, stored));
      await checkpoints.graphics.checkpointMade(tx, slot, payerOf(imodel));
    }
    await transferOrFinish(tx, imodel, source, store, work);
  };
}

/** Finishes a fork with history, or transfers its files into the store of another data center first. */
async function transferOrFinish(
  tx: Tx,
  imodel: IModelTable,
  source: BlobStore,
  store: BlobStore,
  { order }: DerivePayload,
): Promise<void> {
  if (source === store) await finish(tx, imodel, {});
  else await beginTransfer(tx, imodel, store, order);
}

const payerOf = ({ itwin_id, creator_id }: IModelTable) => ({ tenant: itwin_id, userId: creator_id });

async function insertCheckpoint(
  tx: Tx,
  slot: { baseline_id: string | null; segment_id: string | null; changeset_index: number },
  fileId: string,
): Promise<void> {
  const now = Date.now();
  await tx
    .insertInto('checkpoint')
    .values({
      id: randomUUID(),
      ...slot,
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
  await deleteUnusedBaseline(tx, engine, imodel.baseline_id, seeds);
}
