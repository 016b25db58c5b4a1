import type { Database, Db, Tx } from '../db/database.ts';
import type { TransferTable } from '../db/schema.ts';
import type { RunningJob } from '../operations/jobs.ts';
import { FinalError } from '../operations/reasons.ts';
import { accountOfITwin, type Account } from '../quotas/accounts.ts';
import type { BlobStore, CallOptions } from '../storage/blobStore.ts';

/** How often bytes under way are told and the end of the target is looked for. */
const tickMs = 1000;

/** Nobody wants the copy any more, or another run has taken over. */
export class EndedTransferError extends Error {
  constructor() {
    super('the transfer has ended');
    this.name = 'EndedTransferError';
  }
}

/**
 * One run of a transfer: what it has brought over is written down in small transactions, each of which counts only while
 * this run is the latest and the copy is still wanted. A run that dies loses the files that were on their way, no others.
 */
export class TransferRun {
  readonly transfer: TransferTable;
  /** On which what it brings over counts. */
  readonly account: Account;
  /** Aborted when the job's lease is lost, when the server ends, and when the target is deleted. */
  readonly signal: AbortSignal;
  /** For every call of a store that the run makes. */
  readonly options: CallOptions;
  readonly #database: Database;
  readonly #cancel: AbortController;
  #underWay = 0;
  #reporting = false;
  readonly #timer: NodeJS.Timeout;

  private constructor(database: Database, transfer: TransferTable, account: Account, job: RunningJob) {
    this.#database = database;
    this.transfer = transfer;
    this.account = account;
    this.#cancel = new AbortController();
    this.signal = AbortSignal.any([job.signal, this.#cancel.signal]);
    this.options = { signal: this.signal, onProgress: job.onProgress };
    this.#timer = setInterval(() => void this.#reportProgress(), tickMs);
  }

  /**
   * Becomes the latest run of a transfer; undefined when there is nothing left to do.
   * @throws FinalError when too many runs brought nothing over
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

  /** Hears of bytes that pass: told once a second, so that a big file shows that it moves, and with each finished file for good. */
  readonly passed = (bytes: number): void => {
    this.#underWay += bytes;
  };

  /** Writes down what was brought over. @throws EndedTransferError */
  async record(done: { bytes: number; changesets: number }, write: (tx: Tx) => Promise<void>): Promise<void> {
    const { imodel_id: id, attempt } = this.transfer;
    await this.#database.db.transaction().execute(async (tx) => {
      // Rows that only make room for a file are no progress: a run that writes nothing else counts as an attempt in vain.
      const progress = done.bytes > 0 || done.changesets > 0;
      const current = await tx
        .updateTable('transfer')
        .set((eb) => ({ fruitful_attempt: progress ? eb.val(attempt) : eb.ref('fruitful_attempt') }))
        .where('imodel_id', '=', id)
        .where('attempt', '=', attempt)
        .executeTakeFirst();
      if (current.numUpdatedRows === 0n || !(await isWanted(tx, id))) throw new EndedTransferError();
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
    this.#underWay -= done.bytes;
    this.options.onProgress?.();
  }

  /**
   * Takes back a file that came over and was not written down, if the target is gone: nobody else will come for it. Of a run
   * that only ended, or gave way to another, files stay: the next one finds them.
   */
  async discard(store: BlobStore, key: string): Promise<void> {
    if (!(await isWanted(this.#database.db, this.transfer.imodel_id))) await store.delete(key);
  }

  /** Ends the run, and whatever of it is still under way. */
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
      const still = row?.attempt === attempt && (await isWanted(this.#database.db, id));
      if (!still) this.#cancel.abort(new EndedTransferError());
      else
        await this.#database.db
          .updateTable('operation')
          .set({ bytes_under_way: Math.max(0, this.#underWay) })
          .where('imodel_id', '=', id)
          .execute();
    } catch {
      // A database that cannot be reached says so where something is written down.
    } finally {
      this.#reporting = false;
    }
  }
}

/** Whether the copy is still there. */
async function isWanted(db: Db, imodelId: string): Promise<boolean> {
  return (
    (await db
      .selectFrom('imodel')
      .select('id')
      .where('id', '=', imodelId)
      .where('deleted_at', 'is', null)
      .executeTakeFirst()) !== undefined
  );
}
