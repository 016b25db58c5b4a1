import { randomBytes, randomUUID } from 'node:crypto';
import pMap from 'p-map';
import type { Checkpoints } from '../checkpoints/checkpoints.ts';
import { blockBytes, blockIn, forgetFile } from '../checkpoints/modelFiles.ts';
import type { Tx } from '../db/database.ts';
import type { BlobTable, CheckpointTable, ModelFileTable, TransferTable } from '../db/schema.ts';
import type { Effect, JobHandler, RunningJob } from '../operations/jobs.ts';
import type { BlobStore } from '../storage/blobStore.ts';
import type { BlobPlace } from '../storage/blobs.ts';
import { transferCheckpointsJob } from './begin.ts';
import { ending, endTransfer, transferLimits, type TransferParts } from './files.ts';
import { TransferRun } from './run.ts';

type Parts = TransferParts & { checkpoints: Checkpoints };

/** A block of the file that is copied, and where its bytes lie. */
interface SourceBlock extends BlobPlace {
  position: number;
  sha256: string;
  blobId: string;
  blobSize: number;
  start: number;
}

/** A checkpoint of the source, and the file of the copy's own that takes its blocks. */
interface Copy {
  checkpoint: CheckpointTable;
  size: number;
  fileId: string;
  missing: SourceBlock[];
}

/**
 * Handles the second job of a transfer: the checkpoints of what came over, block by block, of which the store may have many
 * already. The iModel is in use meanwhile. Given up, it costs speed and nothing else: the operation is successful then too,
 * and what is missing is made anew where checkpoints are made.
 */
export function transferCheckpointsHandler(parts: Parts): JobHandler {
  return {
    kind: transferCheckpointsJob,
    ...transferLimits(parts.config),
    run: (job) => ending(() => bringCheckpoints(parts, job)),
    giveUp: (tx, { subjectId }) => finish(tx, parts, subjectId),
  };
}

async function bringCheckpoints(parts: Parts, job: RunningJob): Promise<Effect> {
  const run = await TransferRun.begin(parts.database, job, parts.config.fruitlessAttempts);
  if (run === undefined) return async () => undefined;
  try {
    const copies: Copy[] = [];
    for (const checkpoint of await inOrder(parts, run.transfer)) {
      const copy = await prepare(parts, run, checkpoint);
      if (copy !== undefined) copies.push(copy);
    }
    const bytes = copies.flatMap(({ missing, size }) => missing.map(({ position }) => lengthOf(position, size))).reduce((sum, length) => sum + length, 0);
    await parts.database.db
      .updateTable('operation')
      .set((eb) => ({ bytes: eb('bytes_done', '+', bytes) }))
      .where('imodel_id', '=', run.transfer.imodel_id)
      .execute();
    const blocks = new Blocks(parts, run, await twinBlobs(parts, run.transfer));
    for (const { checkpoint, fileId, size, missing } of copies) {
      await pMap(missing, (block) => blocks.bring(block, fileId, lengthOf(block.position, size)), { concurrency: parts.config.parallelFiles, signal: run.signal });
      await run.record({ bytes: 0, changesets: 0 }, (tx) => complete(tx, run.transfer, checkpoint, fileId));
    }
    return (tx) => finish(tx, parts, run.transfer.imodel_id);
  } catch (error) {
    if (run.signal.aborted) throw run.signal.reason;
    throw error;
  } finally {
    run.end();
  }
}

const lengthOf = (position: number, size: number): number => Math.min(blockBytes, size - position * blockBytes);

/** The source's usable checkpoints, the ones that help most first: the newest, the baseline's, then back in time. */
async function inOrder({ checkpoints }: Parts, transfer: TransferTable): Promise<CheckpointTable[]> {
  const usable = await checkpoints.usable({ history_id: transfer.history_id, head_index: transfer.head_index, baseline_id: transfer.from_baseline_id });
  const newest = usable.at(-1);
  const baseline = usable.find(({ baseline_id }) => baseline_id !== null);
  const rest = usable.toReversed().filter((checkpoint) => checkpoint !== newest && checkpoint !== baseline);
  return [...new Set([newest, baseline])].filter((checkpoint) => checkpoint !== undefined).concat(rest);
}

function placeOf(transfer: TransferTable, { baseline_id, changeset_index }: CheckpointTable) {
  return baseline_id === null
    ? { segment_id: transfer.segment_id, baseline_id: null, changeset_index }
    : { segment_id: null, baseline_id: transfer.baseline_id, changeset_index: 0 };
}

/** Makes room for one checkpoint; undefined when the copy has it, or is getting it some other way. */
async function prepare({ database }: Parts, run: TransferRun, checkpoint: CheckpointTable): Promise<Copy | undefined> {
  const { db } = database;
  const source = await db.selectFrom('model_file').selectAll().where('id', '=', checkpoint.file_id ?? '').executeTakeFirst();
  if (source === undefined) return undefined;
  let fileId: string | undefined;
  await run.record({ bytes: 0, changesets: 0 }, async (tx) => {
    fileId = await makeRoom(tx, run.transfer, checkpoint, source);
  });
  if (fileId === undefined) return undefined;
  const there = await db.selectFrom('model_file_block').select('position').where('file_id', '=', fileId).execute();
  const positions = new Set(there.map(({ position }) => position));
  const blocks = await db
    .selectFrom('model_file_block as f')
    .innerJoin('block as k', 'k.id', 'f.block_id')
    .innerJoin('blob as b', 'b.id', 'k.blob_id')
    .select(['f.position', 'k.sha256', 'k.start', 'k.blob_id as blobId', 'b.size as blobSize', 'b.store', 'b.key'])
    .where('f.file_id', '=', source.id)
    .orderBy('f.position')
    .execute();
  const missing = blocks.filter(({ position }) => !positions.has(position)).map((block) => ({ ...block, key: block.key as string }));
  return { checkpoint, size: source.size, fileId, missing };
}

/** @returns the file that takes the blocks; undefined when nothing has to come over */
async function makeRoom(tx: Tx, transfer: TransferTable, checkpoint: CheckpointTable, source: ModelFileTable): Promise<string | undefined> {
  const place = placeOf(transfer, checkpoint);
  const there = tx.selectFrom('checkpoint').select(['state', 'file_id']).where('changeset_index', '=', place.changeset_index);
  const existing = await (place.baseline_id === null ? there.where('segment_id', '=', place.segment_id) : there.where('baseline_id', '=', place.baseline_id)).executeTakeFirst();
  // One without a file is ordered or has failed here: that is its generator's.
  if (existing !== undefined) return existing.state === 'scheduled' ? (existing.file_id ?? undefined) : undefined;
  const fileId = randomUUID();
  const now = Date.now();
  await tx.insertInto('model_file').values({ ...source, id: fileId, created_at: now }).execute();
  await tx
    .insertInto('checkpoint')
    .values({ id: randomUUID(), ...place, state: 'scheduled', file_id: fileId, applied: 0, to_apply: 0, failure_reason: null, created_at: now, finished_at: null })
    .execute();
  return fileId;
}

async function complete(tx: Tx, transfer: TransferTable, checkpoint: CheckpointTable, fileId: string): Promise<void> {
  const { count } = await tx.selectFrom('model_file_block').select((eb) => eb.fn.countAll<number>().as('count')).where('file_id', '=', fileId).executeTakeFirstOrThrow();
  const { size } = await tx.selectFrom('model_file').select('size').where('id', '=', fileId).executeTakeFirstOrThrow();
  if (Number(count) !== Math.ceil(size / blockBytes)) throw new Error(`the checkpoint of changeset ${checkpoint.changeset_index} of ${transfer.imodel_id} did not come over whole`);
  await tx.updateTable('checkpoint').set({ state: 'successful', finished_at: Date.now() }).where('file_id', '=', fileId).where('state', '=', 'scheduled').execute();
}

/** The baseline's file in both stores: blocks that lie in it need not be brought over again. */
async function twinBlobs({ database: { db } }: Parts, transfer: TransferTable): Promise<ReadonlyMap<string, string>> {
  const rows = await db.selectFrom('baseline').select(['id', 'blob_id']).where('id', 'in', [transfer.from_baseline_id, transfer.baseline_id ?? '']).execute();
  const from = rows.find(({ id }) => id === transfer.from_baseline_id);
  const to = rows.find(({ id }) => id === transfer.baseline_id);
  return new Map(from === undefined || to === undefined ? [] : [[from.blob_id, to.blob_id]]);
}

class Blocks {
  readonly #parts: Parts;
  readonly #run: TransferRun;
  readonly #twins: ReadonlyMap<string, string>;
  readonly #store: BlobStore;

  constructor(parts: Parts, run: TransferRun, twins: ReadonlyMap<string, string>) {
    this.#parts = parts;
    this.#run = run;
    this.#twins = twins;
    this.#store = parts.blobs.stores.get(run.transfer.store);
  }

  /** Puts one block into its place in a file, from wherever the store has its content, or else brought over. */
  async bring(block: SourceBlock, fileId: string, length: number): Promise<void> {
    const known = await blockIn(this.#parts.database.db, this.#store.id, block.sha256);
    const twin = this.#twins.get(block.blobId);
    const row = known === undefined && twin === undefined ? await this.#carry(block, length) : undefined;
    let used = true;
    await this.#run.record({ bytes: length, changesets: 0 }, async (tx) => {
      let id = (await blockIn(tx, this.#store.id, block.sha256))?.id;
      used = id === undefined;
      if (id === undefined) {
        if (row !== undefined) await tx.insertInto('blob').values(row).execute();
        const place = row === undefined ? { blob_id: twin, start: block.start } : { blob_id: row.id, start: 0 };
        if (place.blob_id === undefined) throw new Error(`block ${block.sha256} is gone again`);
        id = randomBytes(16).toString('hex').toUpperCase();
        await tx.insertInto('block').values({ id, store: this.#store.id, sha256: block.sha256, blob_id: place.blob_id, start: place.start }).execute();
      }
      // Two copies of one baseline fill the same file.
      await tx.insertInto('model_file_block').values({ file_id: fileId, position: block.position, block_id: id }).onConflict((conflict) => conflict.doNothing()).execute();
    });
    if (!used && row !== undefined) await this.#store.delete(row.key as string, this.#run.options);
  }

  async #carry(block: SourceBlock, length: number): Promise<BlobTable> {
    const key = randomUUID();
    // Blocks of their own are copied as whole files are; those within a baseline are parts of it.
    const range = length === block.blobSize ? undefined : { start: block.start, end: block.start + length - 1 };
    await this.#parts.carrier.carry(block, range, { what: 'a checkpoint', size: length, sha256: block.sha256 }, this.#store, key, this.#run.options, this.#run.passed);
    return { id: randomUUID(), store: this.#store.id, key, size: length, sha256: block.sha256, state: 'stored', created_at: Date.now(), released_at: null };
  }
}

/** The end of a transfer, whether or not all checkpoints came over. */
async function finish(tx: Tx, parts: Parts, imodelId: string): Promise<void> {
  const transfer = await tx.selectFrom('transfer').selectAll().where('imodel_id', '=', imodelId).executeTakeFirst();
  const imodel = await tx.selectFrom('imodel').selectAll().where('id', '=', imodelId).where('deleted_at', 'is', null).executeTakeFirst();
  // Deleted meanwhile: the collector takes the rest.
  if (transfer === undefined || imodel === undefined) return;
  const unfinished = await tx
    .deleteFrom('checkpoint')
    .where('state', '=', 'scheduled')
    .where('file_id', 'is not', null)
    .where((eb) => eb.or([eb('segment_id', '=', transfer.segment_id), eb('baseline_id', '=', transfer.baseline_id)]))
    .returning('file_id')
    .execute();
  for (const { file_id } of unfinished) if (file_id !== null) await forgetFile(tx, file_id);
  await endTransfer(tx, parts, transfer);
  await tx.updateTable('operation').set((eb) => ({ state: 'successful', finished_at: Date.now(), bytes_done: eb.ref('bytes'), bytes_under_way: 0 })).where('imodel_id', '=', imodelId).execute();
  await parts.checkpoints.want(tx, imodel, 0);
  await parts.checkpoints.wantTip(tx, imodel);
}
