import { createHash, randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { brotliDecompressSync } from 'node:zlib';
import { audit } from '../audit.ts';
import type { Database } from '../db/database.ts';
import type { BaselineTable, BlobTable, IModelTable } from '../db/schema.ts';
import { lockIModel } from '../db/statements/lockIModel.ts';
import type { Caller } from '../domain.ts';
import { ApiError } from '../errors.ts';
import type { Blobs } from '../storage/blobs.ts';

/** The empty iModel that new ones start from, made by `scripts/make-seed.ts` with iTwin.js and shipped compressed. */
const seedFile = new URL('../../assets/seed.bim.br', import.meta.url);

export interface Baseline extends Pick<BaselineTable, 'id' | 'state'> {
  blob: Pick<BlobTable, 'id' | 'size' | 'state'>;
}

/**
 * Makes sure that the store holds the seed and the database knows it. Its id follows from the shipped file, so servers that
 * start together agree, and a release with another seed leaves the old one to the iModels that have it.
 * @returns the id of its baseline
 */
export async function ensureSeed(database: Database, blobs: Blobs): Promise<string> {
  const packed = await readFile(seedFile);
  const id = `seed-${createHash('sha256').update(packed).digest('hex').slice(0, 32)}`;
  const { db } = database;
  if ((await db.selectFrom('baseline').select('id').where('id', '=', id).executeTakeFirst()) !== undefined) return id;

  // Unpacked only where it is not known yet: most starts have nothing to do here.
  const seed = brotliDecompressSync(packed);
  const key = randomUUID();
  const { size, sha256 } = await blobs.store.put(key, Readable.from([seed]), seed.length);
  const won = await db.transaction().execute(async (tx) => {
    const now = Date.now();
    const blob = await tx
      .insertInto('blob')
      .values({ id, store: blobs.store.id, key, size, sha256, state: 'stored', created_at: now, released_at: null })
      .onConflict((conflict) => conflict.doNothing())
      .executeTakeFirst();
    await tx
      .insertInto('baseline')
      .values({ id, blob_id: id, state: 'initialized', created_at: now })
      .onConflict((conflict) => conflict.doNothing())
      .execute();
    return (blob.numInsertedOrUpdatedRows ?? 0n) > 0n;
  });
  if (!won) await blobs.store.delete(key);
  return id;
}

/** Baseline files: their state, and the end of their upload. */
export class Baselines {
  readonly #database: Database;
  readonly #blobs: Blobs;

  constructor(database: Database, blobs: Blobs) {
    this.#database = database;
    this.#blobs = blobs;
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
   * Ends the upload of a baseline: the iModel becomes initialized, or its creation fails with a reason when the file is no
   * iModel file.
   * @returns the baseline as it was before
   * @throws ApiError InvalidChange (detail) when no upload is in progress, FileNotFound, DataConflict
   */
  async completeUpload(caller: Caller, imodel: IModelTable): Promise<Baseline> {
    const before = await this.get(imodel.baseline_id);
    if (before.state !== 'waitingForFile') throw uploadNotInProgress();
    if (before.blob.state === 'pending') throw new ApiError('FileNotFound');
    if (before.blob.state === 'refused') throw new ApiError('DataConflict');
    const fault = await this.#faultOf(before.blob.id);

    await this.#database.db.transaction().execute(async (tx) => {
      const row = await lockIModel(tx, this.#database.engine, imodel.id, 'push');
      if (row === undefined) throw new ApiError('iModelNotFound');
      const ended = await tx
        .updateTable('baseline')
        .set({ state: fault === undefined ? 'initialized' : 'initializationFailed' })
        .where('id', '=', row.baseline_id)
        .where('state', '=', 'waitingForFile')
        .executeTakeFirst();
      if (ended.numUpdatedRows === 0n) throw uploadNotInProgress();
      const now = Date.now();
      if (fault === undefined) await tx.updateTable('imodel').set({ state: 'initialized' }).where('id', '=', row.id).execute();
      await tx
        .updateTable('operation')
        .set({ state: fault === undefined ? 'successful' : 'failed', failure_reason: fault ?? null, finished_at: now })
        .where('imodel_id', '=', row.id)
        .execute();
      await audit(tx, caller, { at: now, action: 'baseline.complete', iTwinId: row.itwin_id, iModelId: row.id, detail: fault === undefined ? {} : { fault } });
    });
    return before;
  }

  /** Why an uploaded file cannot be a baseline; undefined when it can. Reads its first 100 bytes, the header of SQLite. */
  async #faultOf(blobId: string): Promise<string | undefined> {
    const blob = await this.#blobs.findReadable(blobId);
    if (blob === undefined) return 'The baseline file is gone.';
    if (blob.size < 512) return 'The baseline file is too short to be an iModel.';
    const header = await buffer(await this.#blobs.store.read(blob.key, { start: 0, end: 99 }));
    if (header.toString('latin1', 0, 16) !== 'SQLite format 3\0') return 'The baseline file is not an iModel: it is no SQLite file.';
    const stored = header.readUInt16BE(16);
    const pageSize = stored === 1 ? 65_536 : stored;
    if (blob.size % pageSize !== 0) return 'The baseline file is damaged: its size is not a whole number of its pages.';
    // The page count counts only when written by the same change as the change counter (SQLite file format, 1.3.8).
    const pages = header.readUInt32BE(28);
    const inStep = header.readUInt32BE(24) === header.readUInt32BE(92);
    if (inStep && pages !== 0 && pages * pageSize !== blob.size) return 'The baseline file is damaged: pages are missing or in excess.';
    return undefined;
  }
}

function uploadNotInProgress(): ApiError {
  return new ApiError('InvalidiModelsRequest', {
    message: 'Cannot complete Baseline File upload.',
    details: [{ code: 'InvalidChange', message: 'Baseline File upload is not in progress.' }],
  });
}
