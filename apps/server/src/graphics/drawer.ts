import { createHash, randomUUID } from 'node:crypto';
import { mkdir, readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import { Readable } from 'node:stream';
import { checkpointAt } from '../checkpoints/checkpoints.ts';
import type { ModelFiles } from '../checkpoints/modelFiles.ts';
import { findIsolation } from '../checkpoints/itwinjs/isolation.ts';
import { WorkerProcess, type ProcessKind } from '../checkpoints/itwinjs/workerProcess.ts';
import { Workers } from '../checkpoints/itwinjs/workers.ts';
import type { Config } from '../config.ts';
import type { Database } from '../db/database.ts';
import type { BlobTable, GraphicsFileTable, GraphicsTable } from '../db/schema.ts';
import type { Effect, JobHandler, RunningJob } from '../operations/jobs.ts';
import { FinalError } from '../operations/reasons.ts';
import { accountOfITwin, type Account } from '../quotas/accounts.ts';
import type { BlobStore, CallOptions } from '../storage/blobStore.ts';
import type { Blobs } from '../storage/blobs.ts';
import { readVerified } from '../storage/verifiedReads.ts';
import type { DrawingRequest, DrawingResult, DrawnFile } from './drawing.ts';
import { failGraphics, graphicsJob } from './rows.ts';

/** The ids in a file do not matter for its graphics. */
const placeholderIds = {
  iModelId: '00000000-0000-0000-0000-000000000000',
  iTwinId: '00000000-0000-0000-0000-000000000000',
};

/** Its processes have other users than those that make checkpoints, which number theirs from 0 to 31. */
const firstUser = 100;

/** Rows that one statement inserts. */
const insertedAtOnce = 500;

const drawingProcess: ProcessKind = {
  script: new URL(`./worker/worker${import.meta.url.slice(import.meta.url.lastIndexOf('.'))}`, import.meta.url),
  work: 'Drawing the iModel',
  does: 'draws iModels',
  // A drawing takes hundreds of MiB, which an idle process would keep.
  idleMs: 0,
};

/** A file that is stored, and the row of its blob if that is new. */
interface StoredFile {
  file: Omit<GraphicsFileTable, 'graphics_id'>;
  blob: BlobTable | undefined;
}

interface Parts {
  database: Database;
  blobs: Blobs;
  modelFiles: ModelFiles;
  config: Pick<Config, 'graphics' | 'checkpoints'>;
  /** Folder for temporary files. */
  folder: string;
  backoffMs: JobHandler['backoffMs'];
}

/** Draws checkpoints in processes of its own. */
export class Drawer {
  readonly #parts: Parts;
  /** Started with the first job, because most servers draw rarely. */
  #workers: Workers<DrawingRequest, DrawingResult> | undefined;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  handler(): JobHandler {
    const { config, backoffMs } = this.#parts;
    return {
      kind: graphicsJob,
      attempts: config.graphics.attempts,
      backoffMs,
      run: (job) => this.#run(job),
      onExhausted: (tx, { subjectId }, reason) => failGraphics(tx, subjectId, reason),
    };
  }

  /** Ids of the running processes, for tests that kill them. */
  get pids(): number[] {
    return this.#workers?.pids ?? [];
  }

  async stop(graceMs: number): Promise<void> {
    await this.#workers?.stop(graceMs);
  }

  async #run(job: RunningJob): Promise<Effect> {
    const { db } = this.#parts.database;
    const row = await db.selectFrom('graphics').selectAll().where('id', '=', job.subjectId).executeTakeFirst();
    if (row?.state !== 'scheduled') return async () => undefined;
    const checkpoint = await checkpointAt(db, row);
    const file = checkpoint?.file_id == null ? undefined : await this.#parts.modelFiles.find(checkpoint.file_id);
    const [block] = file?.blocks ?? [];
    if (checkpoint?.state !== 'successful' || file === undefined || block === undefined)
      throw new FinalError('The checkpoint to draw does not exist.');
    const store = this.#parts.blobs.stores.get(block.store);
    const account = await accountOfITwin(db, job.tenant);
    return this.#slots().use(job.signal, async ({ worker, folder: parent }) => {
      const folder = path.join(parent, randomUUID());
      await mkdir(folder, { recursive: true, mode: 0o700 });
      try {
        const model = path.join(folder, 'model.bim');
        await readVerified('the checkpoint', () => this.#parts.modelFiles.writeTo(file, placeholderIds, model, job));
        const { maxTriangles, maxElements } = this.#parts.config.graphics;
        const { summary, files } = await worker.work({ file: model, maxTriangles, maxElements }, job, () =>
          job.onProgress(),
        );
        const stored: StoredFile[] = [];
        for (const drawn of files)
          stored.push(await this.#store(store, account, path.join(folder, drawn.name), drawn, files, job));
        return this.#record(row, summary, stored);
      } finally {
        await rm(folder, { recursive: true, force: true });
      }
    });
  }

  /** Stores a file, unless the store has one of the same content. */
  async #store(
    store: BlobStore,
    account: Account,
    file: string,
    drawn: DrawnFile,
    all: readonly DrawnFile[],
    options: CallOptions,
  ): Promise<StoredFile> {
    options.onProgress?.();
    const { kind, detail } = drawn;
    const bytes = await readFile(file);
    const sha256 = createHash('sha256').update(bytes).digest('hex');
    const position = all.filter((other) => other.kind === kind).indexOf(drawn);
    const row = (blobId: string): StoredFile['file'] => ({
      kind,
      position,
      blob_id: blobId,
      detail: detail === undefined ? null : JSON.stringify(detail),
    });
    const known = await this.#parts.database.db
      .selectFrom('blob as b')
      .select('b.id')
      .where('b.sha256', '=', sha256)
      .where('b.store', '=', store.id)
      .where('b.released_at', 'is', null)
      .where((eb) => eb.exists(eb.selectFrom('graphics_file as f').select('f.kind').whereRef('f.blob_id', '=', 'b.id')))
      .limit(1)
      .executeTakeFirst();
    if (known !== undefined) return { file: row(known.id), blob: undefined };
    const key = randomUUID();
    const stored = await store.put(key, Readable.from([bytes]), bytes.length, options);
    const blob: BlobTable = {
      id: randomUUID(),
      store: store.id,
      key,
      ...stored,
      state: 'stored',
      created_at: Date.now(),
      released_at: null,
      ...account,
    };
    return { file: row(blob.id), blob };
  }

  #record(row: GraphicsTable, summary: DrawingResult['summary'], stored: readonly StoredFile[]): Effect {
    return async (tx) => {
      const updated = await tx
        .updateTable('graphics')
        .set({
          state: 'successful',
          summary: JSON.stringify(summary),
          has_picture: stored.some(({ file }) => file.kind === 'large') ? 1 : 0,
          failure_reason: null,
          finished_at: Date.now(),
        })
        .where('id', '=', row.id)
        .where('state', '=', 'scheduled')
        .executeTakeFirst();
      const isWanted = updated.numUpdatedRows > 0n;
      for (let n = 0; n < stored.length; n += insertedAtOnce) {
        const some = stored.slice(n, n + insertedAtOnce);
        const blobs = some.flatMap(({ blob }) => blob ?? []);
        // Nobody sees the changeset any more, or other graphics were drawn meanwhile: the collector removes the files.
        const rows = isWanted ? blobs : blobs.map((blob) => ({ ...blob, released_at: Date.now() }));
        if (rows.length > 0) await tx.insertInto('blob').values(rows).execute();
        if (isWanted)
          await tx
            .insertInto('graphics_file')
            .values(some.map(({ file }) => ({ graphics_id: row.id, ...file })))
            .execute();
      }
    };
  }

  #slots(): Workers<DrawingRequest, DrawingResult> {
    const { config, folder: parent } = this.#parts;
    const limits = {
      memoryBytes: config.checkpoints.memoryMiB * 2 ** 20,
      silenceMs: config.checkpoints.silenceSeconds * 1000,
      workMs: config.graphics.workSeconds * 1000,
    };
    return (this.#workers ??= new Workers(
      parent,
      config.graphics.slots,
      (folder, slot) =>
        new WorkerProcess(
          path.join(folder, 'itwinjs'),
          limits,
          findIsolation(folder, config.checkpoints.isolation, { slot: firstUser + slot }),
          drawingProcess,
        ),
    ));
  }
}
