import { createHash, randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { brotliDecompressSync } from 'node:zlib';
import { audit } from '../access/audit.ts';
import type { Database, Tx } from '../db/database.ts';
import { committedBefore } from '../db/requestOutcomes.ts';
import type { BaselineTable, BlobTable, IModelTable } from '../db/schema.ts';
import { lockIModel } from '../db/statements/lockIModel.ts';
import type { Caller } from '../domain.ts';
import { ApiError } from '../errors.ts';
import { raiseCreated } from '../events/events.ts';
import type { Checkpoints } from '../checkpoints/checkpoints.ts';
import type { IdentityOffsets } from '../checkpoints/identity.ts';
import { blockBytes, blockIn, deleteModelFile, type ModelFiles } from '../checkpoints/modelFiles.ts';
import { failCreation } from '../imodels/failedCreation.ts';
import { nobodysAccount } from '../quotas/accounts.ts';
import type { BlobStore } from '../storage/blobStore.ts';
import type { Blobs } from '../storage/blobs.ts';
import type { Uploads } from '../storage/uploads.ts';
import { readSeedFile } from './seedFile.ts';

/** The seed of new empty iModels, made by `scripts/make-seed.ts` with iTwin.js and shipped compressed. */
const seedFile = new URL('../../assets/seed.bim.br', import.meta.url);
/** The offsets of its ids, found and proven by that script. */
const seedOffsets: IdentityOffsets = { iModelIdOffset: 8176, iTwinIdOffset: 7562 };

export interface Baseline extends Pick<BaselineTable, 'id' | 'state'> {
  blob: Pick<BlobTable, 'id' | 'size' | 'state'>;
}

/** Ids of the baselines of new empty iModels, by store. */
export type Seeds = ReadonlyMap<string, string>;

/**
 * Ensures that each store holds the seed and that the database has a baseline and a checkpoint of it, so that every new
 * iModel has a checkpoint at once. The id of the baseline is derived from the file and the store: servers that start at the
 * same time agree on it, and a release with another seed keeps the old one for the iModels that use it.
 * @param ownSeed a file to use in place of the shipped one
 * @throws ConfigError if that file cannot be a seed
 */
export async function ensureSeeds(
  database: Database,
  blobs: Blobs,
  files: ModelFiles,
  ownSeed?: string,
): Promise<Seeds> {
  const own = ownSeed === undefined ? undefined : await readSeedFile(ownSeed);
  const packed = own === undefined ? await readFile(seedFile) : own.bytes;
  const seed: Seed =
    own === undefined
      ? { unpacked: () => brotliDecompressSync(packed), offsets: seedOffsets }
      : { unpacked: () => own.bytes, offsets: own.offsets };
  const shipped = sha256Of(packed).slice(0, 32);
  const seeds = new Map<string, string>();
  for (const store of blobs.stores.all) {
    const id = store === blobs.stores.home ? `seed-${shipped}` : `seed-${shipped}-${sha256Of(store.id).slice(0, 16)}`;
    await ensureSeed(database, store, files, seed, id);
    seeds.set(store.id, id);
  }
  return seeds;
}

/** A seed to record in the database. */
interface Seed {
  unpacked: () => Buffer;
  offsets: IdentityOffsets;
}

async function ensureSeed(
  database: Database,
  store: BlobStore,
  files: ModelFiles,
  { unpacked, offsets }: Seed,
  id: string,
): Promise<void> {
  const { db } = database;
  if ((await db.selectFrom('checkpoint').select('id').where('baseline_id', '=', id).executeTakeFirst()) !== undefined)
    return;

  // The file is unpacked only if the seed is not recorded yet; most starts have nothing to do here.
  const seed = unpacked();
  if ((await db.selectFrom('baseline').select('id').where('id', '=', id).executeTakeFirst()) === undefined)
    await storeSeed(database, store, id, seed);
  await db.transaction().execute(async (tx) => {
    const now = Date.now();
    const blockIds: string[] = [];
    for (let start = 0; start < seed.length; start += blockBytes) {
      const sha256 = sha256Of(seed.subarray(start, start + blockBytes));
      const named = {
        id: sha256Of(`${sha256}/${id}`).slice(0, 32).toUpperCase(),
        store: store.id,
        sha256,
        blob_id: id,
        start,
      };
      await tx
        .insertInto('block')
        .values(named)
        .onConflict((conflict) => conflict.doNothing())
        .execute();
      // A user may have uploaded the same file as a baseline before.
      blockIds.push(((await blockIn(tx, store.id, sha256)) as { id: string }).id);
    }
    const row = {
      id,
      segment_id: null,
      baseline_id: id,
      changeset_index: 0,
      state: 'successful' as const,
      file_id: await files.record(tx, { size: seed.length, blockIds, ...offsets }),
      applied: 0,
      to_apply: 0,
      failure_reason: null,
      created_at: now,
      finished_at: now,
    };
    const won = await tx
      .insertInto('checkpoint')
      .values(row)
      .onConflict((conflict) => conflict.doNothing())
      .executeTakeFirst();
    // Another server recorded it first.
    if (won.numInsertedOrUpdatedRows === 0n) await deleteModelFile(tx, row.file_id);
  });
}

function sha256Of(what: string | Buffer): string {
  return createHash('sha256').update(what).digest('hex');
}

async function storeSeed({ db }: Database, store: BlobStore, id: string, seed: Buffer): Promise<void> {
  const key = randomUUID();
  const { size, sha256 } = await store.put(key, Readable.from([seed]), seed.length);
  const won = await db.transaction().execute(async (tx) => {
    const now = Date.now();
    const blob = await tx
      .insertInto('blob')
      .values({
        id,
        store: store.id,
        key,
        size,
        sha256,
        state: 'stored',
        created_at: now,
        released_at: null,
        ...nobodysAccount,
      })
      .onConflict((conflict) => conflict.doNothing())
      .executeTakeFirst();
    await tx
      .insertInto('baseline')
      .values({ id, blob_id: id, state: 'initialized', created_at: now })
      .onConflict((conflict) => conflict.doNothing())
      .execute();
    return (blob.numInsertedOrUpdatedRows ?? 0n) > 0n;
  });
  if (!won) await store.delete(key);
}

/** Baseline files: reads their state and completes their upload. */
export class Baselines {
  readonly #database: Database;
  readonly #blobs: Blobs;
  readonly #uploads: Uploads;
  readonly #checkpoints: Checkpoints;

  constructor(database: Database, blobs: Blobs, uploads: Uploads, checkpoints: Checkpoints) {
    this.#database = database;
    this.#blobs = blobs;
    this.#uploads = uploads;
    this.#checkpoints = checkpoints;
  }

  async get(baselineId: string): Promise<Baseline> {
    const row = await this.#database.db
      .selectFrom('baseline as l')
      .innerJoin('blob as b', 'b.id', 'l.blob_id')
      .select(['l.id', 'l.state', 'b.id as blob_id', 'b.size', 'b.state as blob_state'])
      .where('l.id', '=', baselineId)
      .executeTakeFirstOrThrow();
    return { id: row.id, state: row.state, blob: { id: row.blob_id, size: row.size, state: row.blob_state } };
  }

  /**
   * Completes the upload of a baseline. The iModel becomes initialized, at once or when its checkpoint has been made. If the
   * file is not an iModel, the creation fails with a reason.
   * @returns the baseline as it was before
   * @throws ApiError InvalidChange (detail) when no upload is in progress, FileNotFound, DataConflict
   */
  async completeUpload(caller: Caller, imodel: IModelTable): Promise<Baseline> {
    let before = await this.get(imodel.baseline_id);
    if (before.state !== 'waitingForFile' && !committedBefore()) throw uploadNotInProgress();
    if (before.blob.state !== 'stored') {
      await this.#uploads.finalize(before.blob.id);
      before = await this.get(imodel.baseline_id);
    }
    if (before.blob.state === 'pending') throw new ApiError('FileNotFound');
    if (before.blob.state === 'refused') throw new ApiError('DataConflict');
    const fault = await this.#faultOf(before.blob.id);

    await this.#database.db.transaction().execute(async (tx) => {
      const row = await lockIModel(tx, this.#database.engine, imodel.id, 'push');
      if (row === undefined) throw new ApiError('iModelNotFound');
      const now = Date.now();
      // If the installation makes checkpoints, the iModel is initialized with its first one, when iTwin.js has opened the file.
      const scheduled = fault === undefined && (await this.#checkpoints.ensureScheduled(tx, row, 0, { when: 'now' }));
      const ended = await (scheduled
        ? scheduleBaseline(tx, row.baseline_id)
        : endBaseline(tx, row.baseline_id, fault === undefined ? 'initialized' : 'initializationFailed', fault));
      if (!ended) throw uploadNotInProgress();
      await audit(tx, caller, {
        at: now,
        action: 'baseline.complete',
        iTwinId: row.itwin_id,
        iModelId: row.id,
        detail: fault === undefined ? {} : { fault },
      });
    });
    return before;
  }

  /** Why an uploaded file cannot be a baseline; undefined if it can. Reads the SQLite header, its first 100 bytes. */
  async #faultOf(blobId: string): Promise<string | undefined> {
    const blob = await this.#blobs.findReadable(blobId);
    if (blob === undefined) return 'The baseline file is missing.';
    if (blob.size < 512) return 'The baseline file is too short to be an iModel.';
    const header = await buffer(await this.#blobs.read(blob, { start: 0, end: 99 }));
    if (header.toString('latin1', 0, 16) !== 'SQLite format 3\0')
      return 'The baseline file is not an iModel: it is not a SQLite file.';
    const stored = header.readUInt16BE(16);
    const pageSize = stored === 1 ? 65_536 : stored;
    if (pageSize < 512 || (pageSize & (pageSize - 1)) !== 0)
      return 'The baseline file is damaged: its header has no valid page size.';
    // The page count is valid only if it was written together with the change counter (SQLite file format, 1.3.8).
    const pages = header.readUInt32BE(24) === header.readUInt32BE(92) ? header.readUInt32BE(28) : 0;
    // Bytes after the last page are allowed: iTwin.js pads every briefcase that it downloads from a checkpoint to a multiple
    // of 4 MiB. Without a valid page count, an incomplete last page means that the file was truncated.
    if (pages === 0 ? blob.size % pageSize !== 0 : blob.size < pages * pageSize)
      return 'The baseline file is damaged: pages are missing.';
    return undefined;
  }
}

async function scheduleBaseline(tx: Tx, baselineId: string): Promise<boolean> {
  const scheduled = await tx
    .updateTable('baseline')
    .set({ state: 'initializationScheduled' })
    .where('id', '=', baselineId)
    .where('state', '=', 'waitingForFile')
    .executeTakeFirst();
  if (scheduled.numUpdatedRows === 0n) return false;
  await tx
    .updateTable('operation')
    .set({ state: 'scheduled' })
    .where('imodel_id', 'in', waitingFor(tx, baselineId))
    .execute();
  return true;
}

/**
 * Ends the initialization of a baseline and of the iModel that waits for it.
 * @param reason why it failed
 * @returns false if it had ended before
 */
export async function endBaseline(
  tx: Tx,
  baselineId: string,
  state: 'initialized' | 'initializationFailed' | 'fileIsBriefcase',
  reason?: string,
): Promise<boolean> {
  const ended = await tx
    .updateTable('baseline')
    .set({ state })
    .where('id', '=', baselineId)
    .where('state', 'in', ['waitingForFile', 'initializationScheduled'])
    .executeTakeFirst();
  if (ended.numUpdatedRows === 0n) return false;
  const waiting = await waitingFor(tx, baselineId).select(['itwin_id', 'creator_id']).execute();
  for (const imodel of waiting) {
    if (state !== 'initialized')
      await failCreation(tx, imodel.id, { state: 'failed', reason: reason ?? 'The baseline file cannot be used.' });
    else {
      await tx
        .updateTable('operation')
        .set({ state: 'successful', failure_reason: null, finished_at: Date.now() })
        .where('imodel_id', '=', imodel.id)
        .execute();
      await tx.updateTable('imodel').set({ state: 'initialized' }).where('id', '=', imodel.id).execute();
      await raiseCreated(tx, imodel);
    }
  }
  return true;
}

function waitingFor(tx: Tx, baselineId: string) {
  return tx
    .selectFrom('imodel')
    .select('id')
    .where('baseline_id', '=', baselineId)
    .where('state', '=', 'notInitialized')
    .where('failed_at', 'is', null);
}

function uploadNotInProgress(): ApiError {
  return new ApiError('InvalidiModelsRequest', {
    message: 'Cannot complete Baseline File upload.',
    details: [{ code: 'InvalidChange', message: 'Baseline File upload is not in progress.' }],
  });
}
