import { randomBytes, randomUUID } from 'node:crypto';
import pMap from 'p-map';
import { blockBytes, blockIn } from '../checkpoints/modelFiles.ts';
import type { Db, Tx } from '../db/database.ts';
import type { BlobTable, CheckpointTable, IModelTable, ModelFileTable, TransferTable } from '../db/schema.ts';
import type { BlobStore } from '../storage/blobStore.ts';
import type { BlobPlace } from '../storage/blobs.ts';
import { DamagedSourceError } from './blobCopier.ts';
import type { TransferParts } from './transferParts.ts';
import type { TransferRun } from './run.ts';
import { sharingOf, type Sharing } from './sharing.ts';

/** A block of a model file to copy, and where its bytes are stored. */
interface SourceBlock extends BlobPlace {
  position: number;
  sha256: string;
  blobId: string;
  blobSize: number;
  start: number;
}

/** A checkpoint of the source, and the target's model file that receives its blocks. */
interface CheckpointCopy {
  checkpoint: CheckpointTable;
  size: number;
  fileId: string;
  missing: SourceBlock[];
}

const lengthOf = (position: number, size: number): number => Math.min(blockBytes, size - position * blockBytes);

const bytesOf = ({ missing, size }: CheckpointCopy): number =>
  missing.reduce((sum, { position }) => sum + lengthOf(position, size), 0);

/** The history view and the baseline whose checkpoints a transfer copies. */
const sourceOf = ({ history_id, head_index, from_baseline_id }: TransferTable) => ({
  history_id,
  head_index,
  baseline_id: from_baseline_id,
});

/** The source's usable checkpoints, the most useful first: the newest, the baseline's, then the others from newest to oldest. */
async function inOrder({ checkpoints }: TransferParts, transfer: TransferTable): Promise<CheckpointTable[]> {
  const usable = await checkpoints.usable(sourceOf(transfer));
  const newest = usable.at(-1);
  const baseline = usable.find(({ baseline_id }) => baseline_id !== null);
  const rest = usable.toReversed().filter((checkpoint) => checkpoint !== newest && checkpoint !== baseline);
  return [...new Set([newest, baseline])].filter((checkpoint) => checkpoint !== undefined).concat(rest);
}

/**
 * Copies all usable checkpoints of the source that the target does not have yet.
 * @returns `waiting` while the source is itself the target of a transfer that still copies checkpoints
 */
export async function copyAllCheckpoints(parts: TransferParts, run: TransferRun): Promise<'copied' | 'waiting'> {
  const copies: CheckpointCopy[] = [];
  for (const checkpoint of await inOrder(parts, run.transfer)) {
    const copy = await prepare(parts, run, run.transfer, checkpoint);
    if (copy !== undefined) copies.push(copy);
  }
  await announce(parts, run, copies);
  for (const copy of copies) await fill(parts, run, run.transfer, copy);
  return (await parts.checkpoints.all(sourceOf(run.transfer))).some(isBeingCopied) ? 'waiting' : 'copied';
}

const isBeingCopied = ({ state, file_id }: CheckpointTable): boolean => state === 'scheduled' && file_id !== null;

/**
 * Gives the target of a transfer one usable checkpoint before it is initialized, because iTwin.js cannot open an iModel
 * without one. The baseline's is tried first: its blocks usually are ranges of the baseline file, which is copied already. If
 * the source has no checkpoint, one of its baseline is made.
 * @returns `waiting` while that is being made; `none` if the installation makes no checkpoints or that one has failed
 */
export async function copyFirstCheckpoint(
  parts: TransferParts,
  run: TransferRun,
  transfer: TransferTable,
): Promise<'copied' | 'waiting' | 'none'> {
  const { db } = parts.database;
  const usable = (await inOrder(parts, transfer)).toSorted(
    (a, b) => Number(a.baseline_id === null) - Number(b.baseline_id === null),
  );
  for (const checkpoint of usable) {
    if (await hasCheckpoint(db, transfer)) return 'copied';
    try {
      const copy = await prepare(parts, run, transfer, checkpoint);
      if (copy === undefined) continue;
      await announce(parts, run, [copy]);
      await fill(parts, run, transfer, copy);
    } catch (error) {
      // The file of this checkpoint is missing or damaged. Another checkpoint may be intact, and so is the iModel itself.
      if (!(error instanceof DamagedSourceError)) throw error;
    }
  }
  if (await hasCheckpoint(db, transfer)) return 'copied';
  if (!parts.checkpoints.enabled) return 'none';
  const ofBaseline = await parts.checkpoints.find(sourceOf(transfer), 0);
  if (ofBaseline !== undefined) {
    // One that was finished after `usable` was read is found by the next attempt; one that was in it is damaged.
    const isNew = ofBaseline.state === 'successful' && !usable.some(({ id }) => id === ofBaseline.id);
    return ofBaseline.state === 'scheduled' || isNew ? 'waiting' : 'none';
  }
  const owners = await db
    .selectFrom('imodel')
    .select(['itwin_id', 'creator_id'])
    .where('id', '=', transfer.imodel_id)
    .executeTakeFirstOrThrow();
  await db
    .transaction()
    .execute((tx) => parts.checkpoints.ensureScheduled(tx, { ...sourceOf(transfer), ...owners }, 0, { when: 'now' }));
  return 'waiting';
}

/**
 * Inserts a row for each checkpoint of the source, in the transaction that initializes the target. From then on, requests for
 * them find a scheduled checkpoint instead of none.
 */
export async function scheduleCheckpoints(
  tx: Tx,
  parts: TransferParts,
  transfer: TransferTable,
  imodel: IModelTable,
): Promise<void> {
  for (const checkpoint of await parts.checkpoints.all(sourceOf(transfer), tx)) {
    const source =
      checkpoint.state !== 'successful' && !isBeingCopied(checkpoint)
        ? undefined
        : await tx
            .selectFrom('model_file')
            .selectAll()
            .where('id', '=', checkpoint.file_id ?? '')
            .executeTakeFirst();
    if (source !== undefined) await insertScheduled(tx, transfer, checkpoint, source);
    else if (checkpoint.state === 'failed')
      await tx
        .insertInto('checkpoint')
        .values({ ...checkpoint, ...vacantSlot(transfer, checkpoint), id: randomUUID() })
        .onConflict((conflict) => conflict.doNothing())
        .execute();
    else await parts.checkpoints.ensureScheduled(tx, imodel, checkpoint.changeset_index);
  }
}

/** Whether the target of a transfer has a usable checkpoint. */
async function hasCheckpoint(db: Db, { baseline_id, segment_id }: TransferTable): Promise<boolean> {
  const found = await db
    .selectFrom('checkpoint')
    .select('id')
    .where((eb) => eb.or([eb('baseline_id', '=', baseline_id), eb('segment_id', '=', segment_id)]))
    .where('state', '=', 'successful')
    .limit(1)
    .executeTakeFirst();
  return found !== undefined;
}

/** Adds the bytes that are to be copied to the progress of the operation. */
async function announce(
  { database }: TransferParts,
  { transfer }: TransferRun,
  copies: readonly CheckpointCopy[],
): Promise<void> {
  const bytes = copies.reduce((sum, copy) => sum + bytesOf(copy), 0);
  await database.db
    .updateTable('operation')
    .set((eb) => ({ bytes: eb('bytes_done', '+', bytes) }))
    .where('imodel_id', '=', transfer.imodel_id)
    .execute();
}

/** Copies the blocks of one checkpoint and makes it usable. */
async function fill(
  parts: TransferParts,
  run: TransferRun,
  transfer: TransferTable,
  { checkpoint, fileId, size, missing }: CheckpointCopy,
): Promise<void> {
  const blocks = new Blocks(
    parts,
    run,
    await counterpartBlobs(parts, transfer),
    await sharingOf(parts.database.db, transfer, parts.config.share),
  );
  await pMap(missing, (block) => blocks.copy(block, fileId, lengthOf(block.position, size)), {
    concurrency: parts.config.parallelFiles,
    signal: run.signal,
  });
  await run.record({ bytes: 0, changesets: 0 }, (tx) => complete(tx, parts, transfer, checkpoint, fileId));
}

function vacantSlot(transfer: TransferTable, { baseline_id, changeset_index }: CheckpointTable) {
  return baseline_id === null
    ? { segment_id: transfer.segment_id, baseline_id: null, changeset_index }
    : { segment_id: null, baseline_id: transfer.baseline_id, changeset_index: 0 };
}

/** Inserts the rows for one checkpoint; undefined if the target has it or another job makes it. */
async function prepare(
  { database }: TransferParts,
  run: TransferRun,
  transfer: TransferTable,
  checkpoint: CheckpointTable,
): Promise<CheckpointCopy | undefined> {
  const { db } = database;
  const source = await db
    .selectFrom('model_file')
    .selectAll()
    .where('id', '=', checkpoint.file_id ?? '')
    .executeTakeFirst();
  if (source === undefined) return undefined;
  let fileId: string | undefined;
  await run.record({ bytes: 0, changesets: 0 }, async (tx) => {
    fileId = await insertScheduled(tx, transfer, checkpoint, source);
  });
  if (fileId === undefined) return undefined;
  const existing = await db.selectFrom('model_file_block').select('position').where('file_id', '=', fileId).execute();
  const positions = new Set(existing.map(({ position }) => position));
  const blocks = await db
    .selectFrom('model_file_block as f')
    .innerJoin('block as k', 'k.id', 'f.block_id')
    .innerJoin('blob as b', 'b.id', 'k.blob_id')
    .select(['f.position', 'k.sha256', 'k.start', 'k.blob_id as blobId', 'b.size as blobSize', 'b.store', 'b.key'])
    .where('f.file_id', '=', source.id)
    .orderBy('f.position')
    .execute();
  const missing = blocks
    .filter(({ position }) => !positions.has(position))
    .map((block) => ({ ...block, key: block.key as string }));
  return { checkpoint, size: source.size, fileId, missing };
}

/** @returns the model file that receives the blocks; undefined if nothing has to be copied */
async function insertScheduled(
  tx: Tx,
  transfer: TransferTable,
  checkpoint: CheckpointTable,
  source: ModelFileTable,
): Promise<string | undefined> {
  const slot = vacantSlot(transfer, checkpoint);
  const query = tx
    .selectFrom('checkpoint')
    .select(['state', 'file_id'])
    .where('changeset_index', '=', slot.changeset_index);
  const existing = await (
    slot.baseline_id === null
      ? query.where('segment_id', '=', slot.segment_id)
      : query.where('baseline_id', '=', slot.baseline_id)
  ).executeTakeFirst();
  // A scheduled checkpoint without a file is made by a checkpoint job, not copied.
  if (existing !== undefined) return existing.state === 'scheduled' ? (existing.file_id ?? undefined) : undefined;
  const fileId = randomUUID();
  const now = Date.now();
  await tx
    .insertInto('model_file')
    .values({ ...source, id: fileId, created_at: now })
    .execute();
  await tx
    .insertInto('checkpoint')
    .values({
      id: randomUUID(),
      ...slot,
      state: 'scheduled',
      file_id: fileId,
      applied: 0,
      to_apply: 0,
      failure_reason: null,
      created_at: now,
      finished_at: null,
    })
    .execute();
  return fileId;
}

async function complete(
  tx: Tx,
  { checkpoints }: TransferParts,
  transfer: TransferTable,
  checkpoint: CheckpointTable,
  fileId: string,
): Promise<void> {
  const { count } = await tx
    .selectFrom('model_file_block')
    .select((eb) => eb.fn.countAll<number>().as('count'))
    .where('file_id', '=', fileId)
    .executeTakeFirstOrThrow();
  const { size } = await tx.selectFrom('model_file').select('size').where('id', '=', fileId).executeTakeFirstOrThrow();
  if (Number(count) !== Math.ceil(size / blockBytes))
    throw new Error(
      `the checkpoint of changeset ${checkpoint.changeset_index} of ${transfer.imodel_id} was not copied completely`,
    );
  await tx
    .updateTable('checkpoint')
    .set({ state: 'successful', finished_at: Date.now() })
    .where('file_id', '=', fileId)
    .where('state', '=', 'scheduled')
    .execute();
  const { itwin_id, creator_id } = await tx
    .selectFrom('imodel')
    .select(['itwin_id', 'creator_id'])
    .where('id', '=', transfer.imodel_id)
    .executeTakeFirstOrThrow();
  // Graphics are drawn again in this store: that takes less than a general copy of any number of files would add here.
  await checkpoints.graphics.checkpointMade(tx, vacantSlot(transfer, checkpoint), {
    tenant: itwin_id,
    userId: creator_id,
  });
}

/** The blob of the source's baseline, mapped to its counterpart in the target store: blocks within it need no copy. */
async function counterpartBlobs(
  { database: { db } }: TransferParts,
  transfer: TransferTable,
): Promise<ReadonlyMap<string, string>> {
  const rows = await db
    .selectFrom('baseline')
    .select(['id', 'blob_id'])
    .where('id', 'in', [transfer.from_baseline_id, transfer.baseline_id ?? ''])
    .execute();
  const from = rows.find(({ id }) => id === transfer.from_baseline_id);
  const to = rows.find(({ id }) => id === transfer.baseline_id);
  return new Map(from === undefined || to === undefined ? [] : [[from.blob_id, to.blob_id]]);
}

class Blocks {
  readonly #parts: TransferParts;
  readonly #run: TransferRun;
  readonly #counterparts: ReadonlyMap<string, string>;
  readonly #sharing: Sharing;
  readonly #store: BlobStore;

  constructor(parts: TransferParts, run: TransferRun, counterparts: ReadonlyMap<string, string>, sharing: Sharing) {
    this.#parts = parts;
    this.#run = run;
    this.#counterparts = counterparts;
    this.#sharing = sharing;
    this.#store = parts.blobs.stores.get(run.transfer.store);
  }

  /** Adds one block to a model file: one that the target store has already, or else a copy. */
  async copy(block: SourceBlock, fileId: string, length: number): Promise<void> {
    const { db } = this.#parts.database;
    // A block that only other organizations have is copied too, so that the time taken does not reveal that it exists. In
    // the end only one block is kept.
    const known = await db
      .selectFrom('block as k')
      .select('k.id')
      .where('k.sha256', '=', block.sha256)
      .where('k.store', '=', this.#store.id)
      .where(this.#sharing.block)
      .executeTakeFirst();
    const counterpart = this.#counterparts.get(block.blobId);
    const row = known === undefined && counterpart === undefined ? await this.#copyBlob(block, length) : undefined;
    let used = true;
    await this.#run
      .record({ bytes: length, changesets: 0 }, async (tx) => {
        let id = (await blockIn(tx, this.#store.id, block.sha256))?.id;
        used = id === undefined;
        if (id === undefined) {
          if (row !== undefined) await tx.insertInto('blob').values(row).execute();
          const place =
            row === undefined ? { blob_id: counterpart, start: block.start } : { blob_id: row.id, start: 0 };
          if (place.blob_id === undefined) throw new Error(`block ${block.sha256} was deleted during the transfer`);
          id = randomBytes(16).toString('hex').toUpperCase();
          await tx
            .insertInto('block')
            .values({ id, store: this.#store.id, sha256: block.sha256, blob_id: place.blob_id, start: place.start })
            .execute();
        }
        // Two transfers of one baseline may fill the same model file.
        await tx
          .insertInto('model_file_block')
          .values({ file_id: fileId, position: block.position, block_id: id })
          .onConflict((conflict) => conflict.doNothing())
          .execute();
      })
      .catch(async (error: unknown) => {
        if (row?.key != null) await this.#run.discard(this.#store, row.key).catch(() => undefined);
        throw error;
      });
    if (!used && row !== undefined) await this.#store.delete(row.key as string, this.#run.options);
  }

  async #copyBlob(block: SourceBlock, length: number): Promise<BlobTable> {
    const key = randomUUID();
    // A block that is a blob of its own is copied as a whole file; one within a baseline is a range of that file.
    const range = length === block.blobSize ? undefined : { start: block.start, end: block.start + length - 1 };
    await this.#parts.copier.copy(
      block,
      range,
      { what: 'a checkpoint', size: length, sha256: block.sha256 },
      this.#store,
      key,
      this.#run.options,
      this.#run.onBytes,
    );
    return {
      id: randomUUID(),
      store: this.#store.id,
      key,
      size: length,
      sha256: block.sha256,
      state: 'stored',
      created_at: Date.now(),
      released_at: null,
      ...this.#run.account,
    };
  }
}
