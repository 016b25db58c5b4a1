import type { Database, Db, Tx } from '../db/database.ts';
import type { TransferTable } from '../db/schema.ts';
import type { RunningJob } from '../operations/jobs.ts';
import { FinalError } from '../operations/reasons.ts';
import { accountOfITwin, type Account } from '../quotas/accounts.ts';
import type { BlobStore, CallOptions } from '../storage/blobStore.ts';

/** How often a run reports the bytes in flight and checks whether the transfer has ended, milliseconds. */
const reportMs = 1000;

/** The target was deleted, or a later run has taken over. */
export class EndedTransferError extends Error {
  constructor() {
    super('the transfer has ended');
    this.name = 'EndedTransferError';
  }
}

/**
 * One run of a transfer. It records copied files in small transactions, each of which counts only while this run is the
 * latest one and the target still exists. A run that dies loses only the files in flight.
 */
export class TransferRun {
  readonly transfer: TransferTable;
  /** The account that the copied bytes count against. */
  readonly account: Account;
  /** Aborted when the job's lease is lost, when the server ends, and when the target is deleted. */
  readonly signal: AbortSignal;
  /** For every store call of the run. */
  readonly options: CallOptions;
  readonly #database: Database;
  readonly #cancel: AbortController;
  #inFlight = 0;
  #reporting = false;
  readonly #timer: NodeJS.Timeout;

  private constructor(database: Database, transfer: TransferTable, account: Account, job: RunningJob) {
    this.#database = database;
    this.transfer = transfer;
    this.account = account;
    this.#cancel = new AbortController();
    this.signal = AbortSignal.any([job.signal, this.#cancel.signal]);
    this.options = { signal: this.signal, onProgress: job.onProgress };
    this.#timer = setInterval(() => void this.#reportProgress(), reportMs);
  }

  /**
   * Begins the latest run of a transfer; undefined if the transfer has ended.
   * @throws FinalError after too many consecutive runs without progress
   */
  static async begin(
    database: Database,
    job: RunningJob,
    attemptsWithoutProgress: number,
  ): Promise<TransferRun | undefined> {
    const { db } = database;
    const transfer = await db
      .updateTable('transfer')
      .set((eb) => ({ attempt: job.attempt, begun_at: eb.fn.coalesce('begun_at', eb.val(Date.now())) }))
      .where('imodel_id', '=', job.subjectId)
      .where('attempt', '<=', job.attempt)
      .where((eb) =>
        eb.exists(eb.selectFrom('imodel').select('id').where('id', '=', job.subjectId).where('deleted_at', 'is', null)),
      )
      .returningAll()
      .executeTakeFirst();
    if (transfer === undefined) return undefined;
    await db.updateTable('operation').set({ bytes_under_way: 0 }).where('imodel_id', '=', job.subjectId).execute();
    if (job.attempt - transfer.fruitful_attempt > attemptsWithoutProgress)
      throw new FinalError(
        `Nothing was copied in ${attemptsWithoutProgress} attempts.${job.lastError === null ? '' : ` The last one: ${job.lastError}`}`,
      );
    return new TransferRun(database, transfer, await accountOfITwin(db, job.tenant), job);
  }

  /** Counts bytes in flight, which are reported once a second so that a large file shows progress. A recorded file counts finally. */
  readonly onBytes = (bytes: number): void => {
    this.#inFlight += bytes;
  };

  /** Records what was copied. @throws EndedTransferError */
  async record(done: { bytes: number; changesets: number }, write: (tx: Tx) => Promise<void>): Promise<void> {
    const { imodel_id: id, attempt } = this.transfer;
    await this.#database.db.transaction().execute(async (tx) => {
      // Rows that only prepare a copy are no progress: a run that records nothing else is an attempt without progress.
      const progress = done.bytes > 0 || done.changesets > 0;
      const current = await tx
        .updateTable('transfer')
        .set((eb) => ({ fruitful_attempt: progress ? eb.val(attempt) : eb.ref('fruitful_attempt') }))
        .where('imodel_id', '=', id)
        .where('attempt', '=', attempt)
        .executeTakeFirst();
      if (current.numUpdatedRows === 0n || !(await targetExists(tx, id))) throw new EndedTransferError();
      await write(tx);
      await tx
        .updateTable('operation')
        .set((eb) => ({
          bytes_done: eb('bytes_done', '+', done.bytes),
          changesets_done: eb('changesets_done', '+', done.changesets),
        }))
        .where('imodel_id', '=', id)
        .execute();
    });
    this.#inFlight -= done.bytes;
    this.options.onProgress?.();
  }

  /**
   * Deletes a copied file that was not recorded, if the target was deleted: no later run would use it. If only this run has
   * ended, the file is kept for the next one.
   */
  async discard(store: BlobStore, key: string): Promise<void> {
    if (!(await targetExists(this.#database.db, this.transfer.imodel_id))) await store.delete(key);
  }

  /** Ends the run and aborts its store calls. */
  end(): void {
    clearInterval(this.#timer);
    this.#cancel.abort(new EndedTransferError());
  }

  async #reportProgress(): Promise<void> {
    if (this.#reporting) return;
    this.#reporting = true;
    try {
      const { imodel_id: id, attempt } = this.transfer;
      const row = await this.#database.db
        .selectFrom('transfer')
        .select('attempt')
        .where('imodel_id', '=', id)
        .executeTakeFirst();
      const still = row?.attempt === attempt && (await targetExists(this.#database.db, id));
      if (!still) this.#cancel.abort(new EndedTransferError());
      else
        await this.#database.db
          .updateTable('operation')
          .set({ bytes_under_way: Math.max(0, this.#inFlight) })
          .where('imodel_id', '=', id)
          .execute();
    } catch {
      // A report may fail; if the database cannot be reached, the next record fails with the error.
    } finally {
      this.#reporting = false;
    }
  }
}

/** Whether the target of the transfer still exists. */
async function targetExists(db: Db, imodelId: string): Promise<boolean> {
  return (
    (await db
      .selectFrom('imodel')
      .select('id')
      .where('id', '=', imodelId)
      .where('deleted_at', 'is', null)
      .executeTakeFirst()) !== undefined
  );
}
