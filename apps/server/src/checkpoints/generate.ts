import { randomUUID } from 'node:crypto';
import { mkdir, rm } from 'node:fs/promises';
import path from 'node:path';
import { raiseBriefcaseCountersOn } from '../briefcases/counter.ts';
import type { Database } from '../db/database.ts';
import type { ChangesetTable, CheckpointTable, IModelTable } from '../db/schema.ts';
import { iModelsWith } from '../db/statements/historyRanges.ts';
import { listChangesets } from '../db/statements/listChangesets.ts';
import type { Effect, JobHandler, RunningJob } from '../operations/jobs.ts';
import { endBaseline } from '../baselines/baselines.ts';
import { accountOfITwin } from '../quotas/accounts.ts';
import type { BlobStore, CallOptions } from '../storage/blobStore.ts';
import type { Blobs } from '../storage/blobs.ts';
import { checkpointJob, type Checkpoints } from './checkpoints.ts';
import { blockHashes, type ModelFiles, type WholeBlob } from './modelFiles.ts';
import { DamagedFileError, readVerified, writeVerified } from '../storage/verifiedReads.ts';
import type { FaultKind, WorkRequest, WorkResult } from './itwinjs/worker.ts';
import { FileFaultError } from './itwinjs/workerProcess.ts';
import type { Workers } from './itwinjs/workers.ts';

/** Bit of `containingChanges` for schema changes. */
const schemaChanges = 1;
/** Number of changesets that are fetched before they are applied. This bounds the disk space of one job. */
const changesetsPerBatch = 500;
const progressEveryMs = 1000;
/** Ids in a stored model file. They are overwritten with those of an iModel when the file is read. */
const placeholderIds = {
  iModelId: '00000000-0000-0000-0000-000000000000',
  iTwinId: '00000000-0000-0000-0000-000000000000',
};

/** How often work of the iTwin.js process is attempted. */
export type Retries = Pick<JobHandler, 'attempts' | 'backoffMs'>;

/** State of an uploaded baseline whose checkpoint cannot be made. */
const baselineStates = {
  notAnIModel: 'initializationFailed',
  briefcase: 'fileIsBriefcase',
  unreadable: 'initialized',
} as const satisfies Record<FaultKind, string>;

/** An iModel file at one changeset, in a temporary folder. */
export interface MadeFile extends WorkResult {
  path: string;
  /** Set if the file is the unchanged baseline file. */
  whole: WholeBlob | undefined;
}

/** Makes model files from the nearest earlier checkpoint, or else from the baseline, and the changesets after it. */
export class Generator {
  readonly #database: Database;
  readonly #blobs: Blobs;
  readonly #checkpoints: Checkpoints;
  readonly #files: ModelFiles;
  readonly #workers: Workers;
  readonly #retries: Retries;

  constructor(parts: {
    database: Database;
    blobs: Blobs;
    checkpoints: Checkpoints;
    files: ModelFiles;
    workers: Workers;
    retries: Retries;
  }) {
    this.#database = parts.database;
    this.#blobs = parts.blobs;
    this.#checkpoints = parts.checkpoints;
    this.#files = parts.files;
    this.#workers = parts.workers;
    this.#retries = parts.retries;
  }

  /** Returns the handler of checkpoint jobs. */
  handler(): JobHandler {
    return {
      kind: checkpointJob,
      ...this.#retries,
      run: (job) => this.#makeCheckpoint(job),
      onExhausted: async (tx, { subjectId }, reason, error) => {
        await tx
          .updateTable('checkpoint')
          .set({ state: 'failed', failure_reason: reason, finished_at: Date.now() })
          .where('id', '=', subjectId)
          .where('state', '=', 'scheduled')
          .execute();
        const row = await tx
          .selectFrom('checkpoint')
          .select(['baseline_id', 'segment_id', 'changeset_index'])
          .where('id', '=', subjectId)
          .executeTakeFirst();
        if (row !== undefined) await this.#checkpoints.graphics.checkpointFailed(tx, row, reason);
        if (row?.baseline_id != null && error instanceof FileFaultError)
          await raiseBriefcaseCountersOn(tx, row.baseline_id, error.highestBriefcaseId + 1);
        // A file that the installed iTwin.js cannot open is kept without a checkpoint: only the file itself can be a
        // reason to reject it, not the version of iTwin.js.
        const otherwise = error instanceof DamagedFileError ? 'initializationFailed' : 'initialized';
        if (row?.baseline_id != null)
          await endBaseline(
            tx,
            row.baseline_id,
            error instanceof FileFaultError ? baselineStates[error.kind] : otherwise,
            reason,
          );
      },
    };
  }

  async #makeCheckpoint(job: RunningJob): Promise<Effect> {
    const row = await this.#database.db
      .selectFrom('checkpoint')
      .selectAll()
      .where('id', '=', job.subjectId)
      .executeTakeFirst();
    if (row?.state !== 'scheduled') return async () => undefined;
    const imodel = await this.#findViewer(row);
    // No iModel can see the changeset any more.
    if (imodel === undefined)
      return async (tx) => {
        await tx.deleteFrom('checkpoint').where('id', '=', row.id).where('state', '=', 'scheduled').execute();
      };
    const { baseline_id: baselineId } = row;
    return this.withFile(
      imodel,
      row.changeset_index,
      { purpose: baselineId === null ? 'checkpoint' : 'baseline', countMissingGuids: false },
      job,
      row.id,
      async (made) => {
        const stored = await this.#files.store(
          await this.storeOf(imodel),
          await accountOfITwin(this.#database.db, job.tenant),
          made.path,
          made,
          made.whole,
          job,
        );
        return async (tx) => {
          const fileId = await this.#files.record(tx, stored);
          await tx
            .updateTable('checkpoint')
            .set({ state: 'successful', file_id: fileId, finished_at: Date.now() })
            .where('id', '=', row.id)
            .execute();
          await this.#checkpoints.graphics.checkpointMade(tx, row, job);
          if (baselineId === null) return;
          await raiseBriefcaseCountersOn(tx, baselineId, made.highestBriefcaseId + 1);
          await endBaseline(tx, baselineId, 'initialized');
        };
      },
    );
  }

  /** The store that contains the files of an iModel, and therefore its checkpoints. */
  async storeOf({ baseline_id }: IModelTable): Promise<BlobStore> {
    const { store } = await this.#database.db
      .selectFrom('baseline as l')
      .innerJoin('blob as b', 'b.id', 'l.blob_id')
      .select('b.store')
      .where('l.id', '=', baseline_id)
      .executeTakeFirstOrThrow();
    return this.#blobs.stores.get(store);
  }

  /** Any iModel that can see the changeset or baseline of a checkpoint. All of them yield the same file. */
  async #findViewer(row: CheckpointTable): Promise<IModelTable | undefined> {
    const { db } = this.#database;
    if (row.segment_id !== null)
      return iModelsWith(db, row.segment_id, row.changeset_index).selectAll('m').limit(1).executeTakeFirst();
    return db
      .selectFrom('imodel')
      .selectAll()
      .where('deleted_at', 'is', null)
      .where('baseline_id', '=', row.baseline_id)
      .limit(1)
      .executeTakeFirst();
  }

  /**
   * Makes the file of an iModel at a changeset, passes it to `use`, and deletes it afterwards.
   * @param checkpointId the checkpoint whose progress is recorded, if any
   * @throws FinalError if a file is missing, damaged or cannot be read
   */
  async withFile<T>(
    imodel: IModelTable,
    index: number,
    task: Pick<WorkRequest, 'purpose' | 'countMissingGuids'>,
    job: Pick<RunningJob, 'signal' | 'onProgress'>,
    checkpointId: string | undefined,
    use: (made: MadeFile) => Promise<T>,
  ): Promise<T> {
    return this.#workers.use(job.signal, async (slot) => {
      const folder = path.join(slot.folder, randomUUID());
      await mkdir(folder, { recursive: true, mode: 0o700 });
      try {
        const file = path.join(folder, 'model.bim');
        const from = await this.#fetchStart(imodel, index, file, job);
        if (checkpointId !== undefined)
          await this.#database.db
            .updateTable('checkpoint')
            .set({ applied: 0, to_apply: index - from.index })
            .where('id', '=', checkpointId)
            .execute();
        const reportProgress = this.#progress(checkpointId, from.index);
        const onApplied = (applied: number): void => {
          job.onProgress();
          reportProgress(applied);
        };
        let result: WorkResult;
        let at = from.index;
        do {
          const changesets = await this.#fetch(imodel, at, Math.min(index, at + changesetsPerBatch), folder, job);
          at = changesets.at(-1)?.index ?? index;
          const last = at === index;
          result = await slot.worker.work(
            {
              file,
              changesets,
              purpose: last ? task.purpose : 'checkpoint',
              countMissingGuids: last && task.countMissingGuids,
            },
            job,
            onApplied,
          );
          for (const changeset of changesets) await rm(changeset.path, { force: true });
        } while (at < index);
        return await use({ ...result, path: file, whole: from.whole });
      } finally {
        await rm(folder, { recursive: true, force: true });
      }
    });
  }

  /** Fetches the file to start from: the nearest checkpoint, or else the baseline. */
  async #fetchStart(
    imodel: IModelTable,
    index: number,
    file: string,
    options: CallOptions,
  ): Promise<{ index: number; whole: WholeBlob | undefined }> {
    const nearest = await this.#checkpoints.nearest(imodel, index);
    const known = nearest?.file_id == null ? undefined : await this.#files.find(nearest.file_id);
    if (nearest !== undefined && known !== undefined) {
      const what =
        nearest.changeset_index === 0
          ? 'the checkpoint of the baseline'
          : `the checkpoint of changeset ${nearest.changeset_index}`;
      await readVerified(what, () => this.#files.writeTo(known, placeholderIds, file, options));
      return { index: nearest.changeset_index, whole: undefined };
    }
    const { blob_id } = await this.#database.db
      .selectFrom('baseline')
      .select('blob_id')
      .where('id', '=', imodel.baseline_id)
      .executeTakeFirstOrThrow();
    await this.#fetchBlob(blob_id, 'the baseline', file, options);
    return { index: 0, whole: { blobId: blob_id, hashes: await blockHashes(file) } };
  }

  async #fetch(
    imodel: IModelTable,
    after: number,
    upTo: number,
    folder: string,
    options: CallOptions,
  ): Promise<WorkRequest['changesets']> {
    if (upTo <= after) return [];
    const rows = await listChangesets(this.#database, imodel, {
      first: after + 1,
      last: upTo,
      limit: upTo - after,
      descending: false,
    });
    if (rows.length !== upTo - after) throw new Error(`changesets ${after + 1} to ${upTo} are incomplete`);
    const changesets: WorkRequest['changesets'] = [];
    for (const row of rows) {
      const target = path.join(folder, `${row.id}.cs`);
      await this.#fetchBlob(row.blob_id, `changeset ${row.index}`, target, options);
      changesets.push(toChangesetFile(row, target));
    }
    return changesets;
  }

  async #fetchBlob(blobId: string, what: string, target: string, options: CallOptions): Promise<void> {
    const blob = await this.#blobs.findReadable(blobId);
    if (blob === undefined) throw new Error(`blob ${blobId} does not exist`);
    await readVerified(what, async () =>
      writeVerified(await this.#blobs.read(blob, undefined, options), blob, target, options.signal),
    );
  }

  /** Records progress, at most once per second. It is only displayed; no attempt resumes from it. */
  #progress(checkpointId: string | undefined, from: number): (index: number) => void {
    if (checkpointId === undefined) return () => undefined;
    let reportedAt = Date.now();
    return (index) => {
      if (Date.now() - reportedAt < progressEveryMs) return;
      reportedAt = Date.now();
      this.#database.db
        .updateTable('checkpoint')
        .set({ applied: index - from })
        .where('id', '=', checkpointId)
        .where('state', '=', 'scheduled')
        .execute()
        .catch(() => undefined);
    };
  }
}

function toChangesetFile(row: ChangesetTable, target: string): WorkRequest['changesets'][number] {
  return {
    id: row.id,
    parentId: row.parent_id,
    index: row.index,
    path: target,
    schema: (row.containing_changes & schemaChanges) !== 0,
  };
}
