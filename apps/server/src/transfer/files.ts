import { createHash, randomUUID } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import pMap from 'p-map';
import { requirePermitted } from '../cloning/stillPermitted.ts';
import type { Config } from '../config.ts';
import type { Tx } from '../db/database.ts';
import type { BlobTable, ChangesetTable, TransferTable } from '../db/schema.ts';
import { rangesOf } from '../db/statements/historyRanges.ts';
import { insertHistory } from '../db/statements/insertHistory.ts';
import { listChangesets } from '../db/statements/listChangesets.ts';
import { raiseCreated } from '../events/events.ts';
import { deleteUnusedBaseline } from '../collector/baselines.ts';
import { failCreation } from '../imodels/failedCreation.ts';
import { exponentialBackoff, enqueue, type Effect, type JobHandler, type RunningJob } from '../operations/jobs.ts';
import type { BlobStore } from '../storage/blobStore.ts';
import type { ReadableBlob } from '../storage/blobs.ts';
import { transferCheckpointsJob, transferFilesJob, type TransferOrder } from './begin.ts';
import { copyFirstCheckpoint, scheduleCheckpoints } from './checkpointCopy.ts';
import { EndedTransferError, TransferRun } from './run.ts';
import { sharingOf, type Sharing } from './sharing.ts';
import type { TransferParts } from './transferParts.ts';

/** Changesets per batch, in which the ones to copy and the files that the store has already are looked up. */
const pageSize = 500;
/** How long copied files wait for others that are recorded with them. */
const gatherMs = 50;
/** Longest wait between attempts. */
const longestRetryMs = 60_000;
/** How long a transfer waits before it checks again for the checkpoint of its source. */
const checkpointPollMs = 1000;

/** A changeset whose file is in the new store; `row` if its blob is new. */
interface CopiedChangeset {
  changeset: ChangesetTable;
  blobId: string;
  row?: BlobTable;
}

/** Attempts and waits of both jobs of a transfer. */
export function transferLimits(config: Config['transfers']): Pick<JobHandler, 'attempts' | 'backoffMs'> {
  // A run that copies something is no failed attempt, however it ends. `TransferRun.begin` counts the others.
  return {
    attempts: Number.MAX_SAFE_INTEGER,
    backoffMs: exponentialBackoff(config.firstRetrySeconds * 1000, longestRetryMs),
  };
}

/** Handles the first job of a transfer: baseline, changesets and one checkpoint, at the end of which the iModel is initialized. */
export function transferFilesHandler(parts: TransferParts): JobHandler {
  return {
    kind: transferFilesJob,
    ...transferLimits(parts.config),
    run: (job) => ignoringEnd(() => copyFiles(parts, job)),
    confirm: (tx, { subjectId, payload }) => requirePermitted(tx, subjectId, payload as TransferOrder),
    onExhausted: (tx, { subjectId }, reason) => fail(tx, parts, subjectId, reason),
  };
}

/** Turns the end of a transfer during a run into a run without an effect. */
export async function ignoringEnd(work: () => Promise<Effect>): Promise<Effect> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof EndedTransferError) return async () => undefined;
    throw error;
  }
}

async function copyFiles(parts: TransferParts, job: RunningJob): Promise<Effect> {
  await requirePermitted(parts.database.db, job.subjectId, job.payload as TransferOrder);
  const run = await TransferRun.begin(parts.database, job, parts.config.attemptsWithoutProgress);
  if (run === undefined) return async () => undefined;
  try {
    await measure(parts, run);
    const files = new Files(parts, run, await sharingOf(parts.database.db, run.transfer, parts.config.share));
    // Clone rule: critical data is copied first.
    // That is the baseline, the changesets and one checkpoint. A second job copies the other checkpoints.
    await pMap(files.missing(), (work) => work(), { concurrency: parts.config.parallelFiles, signal: run.signal });
    await files.settled();
    const transfer = await parts.database.db
      .selectFrom('transfer')
      .selectAll()
      .where('imodel_id', '=', job.subjectId)
      .executeTakeFirst();
    if (transfer === undefined) throw new EndedTransferError();
    if ((await copyFirstCheckpoint(parts, run, transfer)) === 'waiting')
      return (tx) => retryLater(tx, transferFilesJob, job);
    return await initialize(parts, transfer);
  } catch (error) {
    // An aborted call may throw any error; the reason of the abort is what matters.
    if (run.signal.aborted) throw run.signal.reason;
    throw error;
  } finally {
    run.end();
  }
}

/** Records how many bytes there are to copy. @throws QuotaExceededError if they exceed the quota of the iTwin */
async function measure({ database: { db }, quotas }: TransferParts, { transfer, account }: TransferRun): Promise<void> {
  const baseline = await db
    .selectFrom('baseline as l')
    .innerJoin('blob as b', 'b.id', 'l.blob_id')
    .select('b.size')
    .where('l.id', '=', transfer.from_baseline_id)
    .executeTakeFirstOrThrow();
  const changesets = await db
    .selectFrom(rangesOf(transfer.history_id ?? '', 1, transfer.head_index).as('h'))
    .crossJoin('changeset as c')
    .select((eb) => eb.fn.sum<number | null>('c.file_size').as('size'))
    .whereRef('c.segment_id', '=', 'h.segment_id')
    .whereRef('c.index', '>=', 'h.first_index')
    .whereRef('c.index', '<=', 'h.last_index')
    .executeTakeFirst();
  const bytes = baseline.size + Number(changesets?.size ?? 0);
  // Later runs have copied and counted a part of it already.
  if (transfer.fruitful_attempt === 0 && transfer.baseline_id === null) await quotas.requireBytes(db, account, bytes);
  await db.updateTable('operation').set({ bytes }).where('imodel_id', '=', transfer.imodel_id).execute();
}

/** Copies the baseline and the changesets in one run. */
class Files {
  readonly #parts: TransferParts;
  readonly #run: TransferRun;
  readonly #sharing: Sharing;
  readonly #store: BlobStore;
  #copied: CopiedChangeset[] = [];
  #writing: Promise<void> | undefined;
  #failure: Error | undefined;
  /** How many of the first missing files may exist already: an earlier run may have copied them and died before it recorded that. */
  #maybeCopied: number;

  constructor(parts: TransferParts, run: TransferRun, sharing: Sharing) {
    this.#parts = parts;
    this.#run = run;
    this.#sharing = sharing;
    this.#store = parts.blobs.stores.get(run.transfer.store);
    this.#maybeCopied = run.transfer.attempt === 1 ? 0 : pageSize + parts.config.parallelFiles + 1;
  }

  /** The remaining work, one function per file to copy. Files that the store has already are shared without one. */
  async *missing(): AsyncGenerator<() => Promise<void>> {
    const { transfer } = this.#run;
    if (transfer.baseline_id === null) yield () => this.#copyBaseline();
    for (let first = 1; first <= transfer.head_index; first += pageSize) {
      const last = Math.min(first + pageSize - 1, transfer.head_index);
      const missing = await this.#missingChangesets(first, last);
      const blobs = await this.#blobs(missing);
      const known = await this.#known([...blobs.values()]);
      for (const changeset of missing) {
        const blob = blobs.get(changeset.blob_id);
        if (blob === undefined) throw new Error(`blob ${changeset.blob_id} does not exist`);
        const blobId = known.get(contentOf(blob));
        if (blobId === undefined) yield () => this.#copyChangeset(changeset, blob);
        else await this.#add({ changeset, blobId });
      }
    }
  }

  /** Waits until every copied file is recorded. */
  async settled(): Promise<void> {
    while (this.#failure === undefined && (this.#writing !== undefined || this.#copied.length > 0)) await this.#write();
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** The changesets of a range that the new iModel does not have yet. */
  async #missingChangesets(first: number, last: number): Promise<ChangesetTable[]> {
    const { database } = this.#parts;
    const { transfer } = this.#run;
    const rows = await listChangesets(database, transfer, {
      first,
      last,
      limit: pageSize,
      descending: false,
    });
    if (rows.length !== last - first + 1) throw new Error(`changesets ${first} to ${last} are incomplete`);
    const existing = await database.db
      .selectFrom('changeset')
      .select('index')
      .where('segment_id', '=', transfer.segment_id)
      .where('index', '>=', first)
      .where('index', '<=', last)
      .execute();
    const indexes = new Set(existing.map(({ index }) => index));
    return rows.filter(({ index }) => !indexes.has(index));
  }

  async #blobs(changesets: readonly ChangesetTable[]): Promise<Map<string, ReadableBlob>> {
    if (changesets.length === 0) return new Map();
    const ids = changesets.map(({ blob_id }) => blob_id);
    const rows = await this.#parts.database.db
      .selectFrom('blob')
      .select(['id', 'store', 'key', 'size', 'sha256'])
      .where('id', 'in', ids)
      .where('state', '=', 'stored')
      .execute();
    return new Map(rows.map((row) => [row.id, row as ReadableBlob]));
  }

  /** Ids of blobs with these contents in the new store. */
  async #known(blobs: readonly ReadableBlob[]): Promise<Map<string, string>> {
    if (blobs.length === 0) return new Map();
    const rows = await this.#parts.database.db
      .selectFrom('blob as b')
      .select(['b.id', 'b.size', 'b.sha256'])
      .where('b.sha256', 'in', [...new Set(blobs.map(({ sha256 }) => sha256))])
      .where('b.store', '=', this.#store.id)
      .where('b.state', '=', 'stored')
      .where(this.#sharing.changeset)
      .execute();
    return new Map(rows.map((row) => [contentOf(row as ReadableBlob), row.id]));
  }

  async #copyChangeset(changeset: ChangesetTable, blob: ReadableBlob): Promise<void> {
    const row = await this.#copy(blob, `changeset ${changeset.index}`);
    await this.#add({ changeset, blobId: row.id, row });
  }

  async #copy(blob: ReadableBlob, what: string): Promise<BlobTable> {
    const { copier } = this.#parts;
    const { transfer, account, options, onBytes } = this.#run;
    const { size, sha256 } = blob;
    const expected = { what, size, sha256 };
    const key = keyOf(transfer, blob);
    if (!(this.#maybeCopied-- > 0 && (await copier.has(this.#store, key, expected, options))))
      await this.#unlessEnded(key, () =>
        copier.copy(blob, undefined, expected, this.#store, key, { ...options, settledLater: true }, onBytes),
      );
    return {
      id: randomUUID(),
      store: this.#store.id,
      key,
      size,
      sha256,
      state: 'stored',
      created_at: Date.now(),
      released_at: null,
      ...account,
    };
  }

  /** Copies a file, and discards it if the run ends meanwhile. */
  async #unlessEnded(key: string, copy: () => Promise<void>): Promise<void> {
    try {
      await copy();
      this.#run.signal.throwIfAborted();
    } catch (error) {
      await this.#run.discard(this.#store, key).catch(() => undefined);
      throw error;
    }
  }

  /** Shares a baseline that the store has already, with its checkpoint if it has one, or else copies the source's. */
  async #copyBaseline(): Promise<void> {
    const { database, blobs } = this.#parts;
    const { transfer } = this.#run;
    const { blob_id } = await database.db
      .selectFrom('baseline')
      .select('blob_id')
      .where('id', '=', transfer.from_baseline_id)
      .executeTakeFirstOrThrow();
    const blob = await blobs.findReadable(blob_id);
    if (blob === undefined) throw new Error(`blob ${blob_id} does not exist`);
    const same = await database.db
      .selectFrom('baseline as l')
      .innerJoin('blob as b', 'b.id', 'l.blob_id')
      .select('l.id')
      .where('b.sha256', '=', blob.sha256)
      .where('b.store', '=', this.#store.id)
      .where('b.state', '=', 'stored')
      .where('l.state', '=', 'initialized')
      .where(this.#sharing.baseline)
      .limit(1)
      .executeTakeFirst();
    const row = same === undefined ? await this.#copy(blob, 'the baseline') : undefined;
    await this.#settle([row]);
    await this.#run.record({ bytes: blob.size, changesets: 0 }, async (tx) => {
      const id = same?.id ?? randomUUID();
      if (row !== undefined) {
        await tx.insertInto('blob').values(row).execute();
        await tx
          .insertInto('baseline')
          .values({ id, blob_id: row.id, state: 'initialized', created_at: Date.now() })
          .execute();
      }
      await tx.updateTable('transfer').set({ baseline_id: id }).where('imodel_id', '=', transfer.imodel_id).execute();
    });
  }

  /** Adds a changeset to be recorded. All that are added while others are being recorded form the next batch. */
  async #add(copied: CopiedChangeset): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    this.#copied.push(copied);
    const writing = this.#write();
    if (this.#copied.length >= pageSize) await writing;
  }

  #write(): Promise<void> {
    this.#writing ??= this.#writeAll().finally(() => (this.#writing = undefined));
    return this.#writing;
  }

  async #writeAll(): Promise<void> {
    try {
      while (this.#copied.length > 0) {
        // One sync of a folder, and one transaction, for as many files as possible.
        if (this.#copied.length < pageSize) await pause(gatherMs);
        const batch = this.#copied.splice(0, pageSize);
        const bytes = batch.reduce((sum, { changeset }) => sum + changeset.file_size, 0);
        await this.#settle(batch.map(({ row }) => row))
          .then(() => this.#run.record({ bytes, changesets: batch.length }, (tx) => this.#insert(tx, batch)))
          .catch(async (error: unknown) => {
            for (const { row } of [...batch, ...this.#copied])
              if (row?.key != null) await this.#run.discard(this.#store, row.key).catch(() => undefined);
            throw error;
          });
      }
    } catch (error) {
      this.#failure = error as Error;
    }
  }

  /** Makes copied files durable before they are recorded. The files of a batch share the syncs of their folders. */
  async #settle(rows: readonly (BlobTable | undefined)[]): Promise<void> {
    const keys = rows.flatMap((row) => row?.key ?? []);
    if (keys.length > 0) await this.#store.settle?.(keys, this.#run.options);
  }

  async #insert(tx: Tx, batch: readonly CopiedChangeset[]): Promise<void> {
    const rows = batch.flatMap(({ row }) => row ?? []);
    if (rows.length > 0) await tx.insertInto('blob').values(rows).execute();
    const segmentId = this.#run.transfer.segment_id as string;
    await tx
      .insertInto('changeset')
      .values(batch.map(({ changeset, blobId }) => ({ ...changeset, segment_id: segmentId, blob_id: blobId })))
      .execute();
  }
}

/** The key of a copied file: the same in every run, so that no run leaves an orphaned object. */
const keyOf = (transfer: TransferTable, blob: ReadableBlob): string =>
  createHash('sha256').update(`${transfer.imodel_id}/${blob.id}`).digest('hex').slice(0, 32);

const contentOf = ({ sha256, size }: Pick<ReadableBlob, 'sha256' | 'size'>): string => `${sha256}/${size}`;

/** Schedules the job again, to check whether the checkpoint that it waits for has been made. */
export async function retryLater(tx: Tx, kind: string, job: RunningJob): Promise<void> {
  await tx
    .updateTable('transfer')
    .set({ attempt: 0, fruitful_attempt: 0 })
    .where('imodel_id', '=', job.subjectId)
    .execute();
  await enqueue(tx, {
    kind,
    subjectId: job.subjectId,
    tenant: job.tenant,
    userId: job.userId,
    payload: job.payload,
    delayMs: checkpointPollMs,
  });
}

/** Ends the first job: the iModel uses its own files from now on, and the second job copies the other checkpoints. */
async function initialize(parts: TransferParts, transfer: TransferTable): Promise<Effect> {
  const { database } = parts;
  const { imodel_id: id, segment_id: segmentId, baseline_id: baselineId } = transfer;
  const { count } = await database.db
    .selectFrom('changeset')
    .select((eb) => eb.fn.countAll<number>().as('count'))
    .where('segment_id', '=', segmentId ?? '')
    .executeTakeFirstOrThrow();
  if (baselineId === null || Number(count) !== transfer.head_index)
    throw new Error(`${count} of ${transfer.head_index} changesets were copied`);
  return async (tx) => {
    const from = { history_id: null, head_index: 0 };
    const historyId =
      segmentId === null ? null : await insertHistory(tx, { segmentId, firstIndex: 1, from, now: Date.now() });
    // Clone rule: the iModel may become initialized before its create operation is successful.
    const imodel = await tx
      .updateTable('imodel')
      .set({ baseline_id: baselineId, history_id: historyId, state: 'initialized' })
      .where('id', '=', id)
      .where('deleted_at', 'is', null)
      .returningAll()
      .executeTakeFirst();
    if (imodel === undefined) {
      // The iModel was deleted meanwhile, so nothing refers to the new history.
      if (historyId !== null) await tx.deleteFrom('history').where('id', '=', historyId).execute();
      return endTransfer(tx, parts, transfer);
    }
    await tx.updateTable('transfer').set({ attempt: 0, fruitful_attempt: 0 }).where('imodel_id', '=', id).execute();
    await tx
      .updateTable('operation')
      .set((eb) => ({ changesets_done: eb.ref('changesets'), bytes_done: eb.ref('bytes'), bytes_under_way: 0 }))
      .where('imodel_id', '=', id)
      .execute();
    await scheduleCheckpoints(tx, parts, transfer, imodel);
    await raiseCreated(tx, imodel);
    await enqueue(tx, {
      kind: transferCheckpointsJob,
      subjectId: id,
      tenant: imodel.itwin_id,
      userId: imodel.creator_id,
    });
  };
}

/** Ends a transfer, and with it the references to what it copied from. */
export async function endTransfer(
  tx: Tx,
  { database: { engine }, seeds }: Pick<TransferParts, 'database' | 'seeds'>,
  transfer: TransferTable,
): Promise<void> {
  await tx.deleteFrom('transfer').where('imodel_id', '=', transfer.imodel_id).execute();
  for (const id of [transfer.from_baseline_id, transfer.baseline_id])
    if (id !== null) await deleteUnusedBaseline(tx, engine, id, seeds);
}

async function fail(tx: Tx, parts: TransferParts, imodelId: string, reason: string): Promise<void> {
  const transfer = await tx.selectFrom('transfer').selectAll().where('imodel_id', '=', imodelId).executeTakeFirst();
  await failCreation(tx, imodelId, {
    state: 'failed',
    reason,
    seedId: transfer === undefined ? undefined : parts.seeds.get(transfer.store),
  });
  if (transfer === undefined) return;
  // Without an owner, what was copied so far is deleted by the collector, and counts for nobody.
  await tx.deleteFrom('push_count').where('imodel_id', '=', imodelId).execute();
  await tx.updateTable('segment').set({ owner_imodel_id: null }).where('id', '=', transfer.segment_id).execute();
  await endTransfer(tx, parts, transfer);
}
