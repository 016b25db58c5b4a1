import { randomUUID } from 'node:crypto';
import { EventEmitter } from 'node:events';
import type { FastifyBaseLogger } from 'fastify';
import { sql, type RawBuilder } from 'kysely';
import { databaseNow } from '../db/clock.ts';
import type { Database, Db, Tx } from '../db/database.ts';
import { defer } from '../db/deferred.ts';
import { outsideRequest } from '../db/requestOutcomes.ts';
import type { JobTable } from '../db/schema.ts';
import { unservedKinds } from '../db/statements/unservedKinds.ts';
import { isOver } from '../db/statements/waitingJobs.ts';
import { continuing, currentTrace, traced } from '../traces/traces.ts';
import { FairOrder, type Account } from './fairOrder.ts';
import { FinalError, PublicError, reasonForUsers } from './reasons.ts';
import { WaitingUsers } from './waitingUsers.ts';
import { within } from './within.ts';

/** A job to enqueue; it runs after the transaction that enqueues it has committed. */
export interface NewJob {
  kind: string;
  subjectId: string;
  /** Id of the iTwin that the job belongs to. */
  tenant: string;
  /** User that the job counts for in the fair order. */
  userId: string;
  payload?: unknown;
  /** Earliest start, in milliseconds from now. */
  delayMs?: number;
}

/** A running job, as its handler sees it. */
export interface RunningJob {
  id: string;
  subjectId: string;
  tenant: string;
  userId: string;
  payload: unknown;
  /** Counted from 1. */
  attempt: number;
  /** Why the previous attempt failed. */
  lastError: string | null;
  /** Aborted when the lease is lost or the server stops: the result would be discarded. */
  signal: AbortSignal;
  /** The handler calls it on every progress; a job without progress for too long is abandoned and retried. */
  onProgress: () => void;
}

/** All changes of a job, applied in the transaction that completes it: exactly once, however often the job ran. */
export type Effect = (tx: Tx) => Promise<void>;

export interface JobHandler {
  kind: string;
  /** Maximum number of attempts. */
  attempts: number;
  /** Delay before attempt n + 1, in milliseconds. */
  backoffMs(attempt: number): number;
  /** Does the work. Errors are retried, except for `FinalError`. */
  run(job: RunningJob): Promise<Effect>;
  /** Checks, in the transaction that completes the job, whether its effect may still be applied. @throws FinalError to fail the job */
  confirm?(tx: Tx, job: Pick<RunningJob, 'subjectId' | 'payload'>): Promise<void>;
  /** Called when all attempts are exhausted. @param reason for users */
  onExhausted(
    tx: Tx,
    job: Pick<RunningJob, 'id' | 'subjectId' | 'payload'>,
    reason: string,
    error: Error,
  ): Promise<void>;
  /** Keeps the row of an exhausted job as `failed`, so that an administrator can inspect and restart it. */
  keepFailed?: boolean;
}

/** Timings of the engine in milliseconds; tests shorten them. */
export interface JobTimes {
  lease: number;
  renew: number;
  poll: number;
  /** Maximum time without progress. */
  progress: number;
}
const standardTimes: JobTimes = { lease: 30_000, renew: 10_000, poll: 1000, progress: 300_000 };
/** Delay between enqueuing and polling, so that the transaction has usually committed; otherwise the next poll finds the job. */
const commitMs = 30;

/** How long an aborted job may take to end. After that it is abandoned: it may keep running, but its result is discarded. */
const abortMs = 2000;
/** How long a job is due, with none of its kind running, before its kind is reported as unserved. */
const unservedMs = 600_000;
/** How long a stopping server tries to release its jobs; other servers take over the remaining ones when their leases expire. */
const handBackMs = 1000;

/** A job was abandoned because it made no progress. */
class StalledJobError extends PublicError {
  constructor(seconds: number) {
    super(`There was no progress for ${seconds} s.`);
    this.name = 'StalledJobError';
  }
}

/** The lease of a job was lost; another server may be running it. */
class LeaseLostError extends Error {
  constructor() {
    super('the lease was lost');
    this.name = 'LeaseLostError';
  }
}

/** Notifies every engine of this process that a job was enqueued, with its delay. */
const accepted = new EventEmitter<{ job: [delayMs: number] }>();
accepted.setMaxListeners(0);

/**
 * Durable jobs in a database table: enqueued in the caller's transaction, claimed with `SKIP LOCKED`, run at least once,
 * and applied exactly once: one transaction applies the effect of a run and deletes its job, fenced by lease owner and
 * attempt. The lease lasts 30 s and is renewed every 10 s by a timer; other servers take over the jobs of a dead server
 * when the lease expires, so within 31 s.
 */
export class Jobs {
  readonly #database: Database;
  readonly #log: FastifyBaseLogger;
  readonly #times: JobTimes;
  readonly #owner = randomUUID();
  readonly #lease: number;
  readonly #pools: JobPool[] = [];
  #timer: NodeJS.Timeout | undefined;
  #stopping = false;

  constructor(database: Database, log: FastifyBaseLogger, times: Partial<JobTimes> = {}) {
    this.#database = database;
    this.#log = log;
    this.#times = { ...standardTimes, ...times };
    this.#lease = Math.round(this.#times.lease);
  }

  /** Registers handlers that share `slots` concurrent jobs, in a fair order among users and organizations (`FairOrder`). */
  handle(slots: number, handlers: readonly JobHandler[]): void {
    this.#pools.push({
      slots,
      order: new FairOrder(slots),
      users: new WaitingUsers(),
      handlers: new Map(handlers.map((handler) => [handler.kind, handler])),
      running: new Map(),
      claiming: undefined,
      again: false,
    });
  }

  /** Resets every running job to ready: for the startup of a server that is the only one on its database. */
  async reclaim(): Promise<void> {
    await this.#database.db
      .updateTable('job')
      .set({ state: 'ready', lease_owner: null, lease_until: null })
      .where('state', '=', 'running')
      .execute();
  }

  start(): void {
    this.#timer = setInterval(() => this.wake(), this.#times.poll);
    this.#timer.unref();
    accepted.on('job', this.#onAccepted);
    this.wake();
  }

  readonly #onAccepted = (delayMs: number): void => {
    // The regular poll finds jobs with longer delays.
    if (delayMs < this.#times.poll) setTimeout(() => this.wake(), delayMs + commitMs).unref();
  };

  /** Polls for due jobs now. */
  wake(): void {
    if (this.#timer === undefined || this.#stopping) return;
    // A request may wake the engine; the work of jobs must not run in the context of that request.
    outsideRequest(() => this.#pools.forEach((pool) => this.#fill(pool)));
  }

  /**
   * Stops claiming jobs, waits up to `graceMs` for running ones, and releases the others so that another server can start
   * them immediately. Returns within `graceMs` plus 3 s even if a job hangs.
   */
  async stop(graceMs: number): Promise<void> {
    this.#stopping = true;
    clearInterval(this.#timer);
    accepted.off('job', this.#onAccepted);
    // A job claimed during shutdown is released as soon as the claim returns.
    await within(Promise.all(this.#pools.flatMap(({ claiming }) => claiming ?? [])), Math.max(graceMs, abortMs));
    const running = this.#pools.flatMap((pool) => [...pool.running.values()]);
    if (running.length === 0) return;
    const ended = Promise.allSettled(running.map((job) => job.ended));
    await within(ended, graceMs);
    for (const { abort } of running) abort.abort(new Error('the server is stopping'));
    await within(ended, abortMs + handBackMs);
  }

  /**
   * Kinds of due jobs that no server appears to run. On SQLite these are the kinds that this server does not handle;
   * on PostgreSQL, kinds with a job due for ten minutes and none running anywhere.
   */
  async unserved(): Promise<string[]> {
    const { watchDb: db, engine } = this.#database;
    const alone = engine === 'sqlite';
    const own = this.#pools.flatMap(({ slots, handlers }) => (slots > 0 ? [...handlers.keys()] : []));
    const kinds = await unservedKinds(db, alone ? 0 : unservedMs);
    return kinds.filter((kind) => !alone || !own.includes(kind));
  }

  #fill(pool: JobPool): void {
    // One claim at a time; `again` records a wake-up during a claim.
    pool.again = true;
    pool.claiming ??= this.#claimAll(pool).finally(() => (pool.claiming = undefined));
  }

  async #claimAll(pool: JobPool): Promise<void> {
    try {
      while (pool.again && !this.#stopping) {
        pool.again = false;
        while (pool.running.size < pool.slots && !this.#stopping) {
          const claimed = await this.#claim(pool);
          if (claimed === undefined) break;
          if (this.#stopping) await this.#handBack(claimed.row);
          else this.#run(pool, claimed);
        }
      }
    } catch (error) {
      this.#log.error({ err: error }, 'polling for jobs failed; retrying');
    }
  }

  /** Claims the next job in the fair order. */
  async #claim(pool: JobPool): Promise<Claimed | undefined> {
    const running = [...pool.running.values()];
    // A clock set forward expires leases early; a job that still runs here must not start a second time.
    const here = { owner: this.#owner, ids: running.map(({ id }) => id) };
    for await (const waiting of pool.users.read(this.#database.db, [...pool.handlers.keys()], here)) {
      if (this.#stopping) return undefined;
      const accounts = waiting.map(({ user_id, organization_id, kind, state, run_at }) => ({
        userId: user_id,
        organizationId: organization_id,
        kind,
        state,
        dueAt: run_at,
      }));
      for (const next of pool.order.order(
        accounts,
        running.map(({ account }) => account),
      )) {
        const row = await this.#take(next, here.ids);
        if (row === undefined) continue; // Another server was faster.
        pool.order.served(next);
        return { row, account: next };
      }
    }
    return undefined;
  }

  async #take(
    { userId, kind, state }: { userId: string; kind: string; state: 'ready' | 'running' },
    here: readonly string[],
  ): Promise<JobTable | undefined> {
    const { db, engine } = this.#database;
    const notHere = here.length === 0 ? sql`1 = 1` : sql`id not in (${sql.join(here)})`;
    const due =
      state === 'ready'
        ? isOver(db, 'run_at')
        : sql`${isOver(db, 'lease_until')} and (lease_owner <> ${this.#owner} or ${notHere})`;
    const candidate = sql`select id from job where kind = ${kind} and state = ${state} and user_id = ${userId} and ${due}
      order by run_at limit 1 ${sql.raw(engine === 'postgres' ? 'for update skip locked' : '')}`;
    const { rows } =
      await sql<JobTable>`update job set state = 'running', lease_owner = ${this.#owner}, lease_until = ${databaseNow(db)} + ${this.#lease}, wait_ms = ${this.#lease}, attempt = attempt + 1
      where id = (${candidate}) returning *`.execute(db);
    return rows[0];
  }

  #run(pool: JobPool, { row, account }: Claimed): void {
    const handler = pool.handlers.get(row.kind) as JobHandler;
    const abort = new AbortController();
    // A job whose lease was lost may run twice at the same time here, so the attempt is part of the key.
    const run = `${row.id}/${row.attempt}`;
    const renewing = setInterval(() => {
      this.#renew(row).then(
        (held) => held || abort.abort(new LeaseLostError()),
        (error: unknown) => this.#log.warn({ err: error, job: row.id }, 'renewing the lease of a job failed; retrying'),
      );
    }, this.#times.renew);
    const stalled = setTimeout(
      () => abort.abort(new StalledJobError(this.#times.progress / 1000)),
      this.#times.progress,
    );
    const job: RunningJob = {
      id: row.id,
      subjectId: row.subject_id,
      tenant: row.tenant,
      userId: row.user_id,
      payload: JSON.parse(row.payload),
      attempt: row.attempt,
      lastError: row.last_error,
      signal: abort.signal,
      onProgress: () => void stalled.refresh(),
    };
    const ended = this.#finish(handler, job, row)
      .catch((error: unknown) =>
        this.#log.error(
          { err: error, job: row.id, kind: row.kind },
          'the result of a job could not be written; it runs again when its lease expires',
        ),
      )
      .finally(() => {
        clearInterval(renewing);
        clearTimeout(stalled);
        pool.running.delete(run);
        if (!this.#stopping) this.#fill(pool);
      });
    pool.running.set(run, { id: row.id, account, abort, ended });
  }

  async #finish(handler: JobHandler, job: RunningJob, row: JobTable): Promise<void> {
    let effect: Effect;
    try {
      if (row.attempt > handler.attempts)
        throw new FinalError(row.last_error ?? 'The server ended during the last attempt.');
      effect = await traced(
        `job ${row.kind}`,
        { 'offshoot.job': row.id, 'offshoot.subject': row.subject_id, 'offshoot.attempt': row.attempt },
        () => unlessAborted(handler.run(job), job.signal, abortMs),
        { parent: continuing(row.trace), kind: 'CONSUMER' },
      );
    } catch (error) {
      await this.#failed(handler, job, row, error as Error);
      return;
    }
    try {
      await this.#database.db.transaction().execute(async (tx) => {
        const ended = await fenced(tx.deleteFrom('job'), row).executeTakeFirst();
        if (ended.numDeletedRows === 0n) return; // Another server took the job over; its run counts.
        await handler.confirm?.(tx, job);
        await effect(tx);
      });
    } catch (error) {
      if (!(error instanceof FinalError)) throw error;
      await this.#failed(handler, job, row, error);
    }
  }

  async #failed(handler: JobHandler, job: RunningJob, row: JobTable, error: Error): Promise<void> {
    if (job.signal.aborted && this.#stopping) return this.#handBack(row);
    // The job belongs to another server now.
    if (job.signal.reason instanceof LeaseLostError) return;
    const { db } = this.#database;
    const reason = reasonForUsers(error, row.id);
    if (!(error instanceof FinalError) && row.attempt < handler.attempts) {
      this.#log.warn(
        { err: error, job: row.id, kind: row.kind, attempt: row.attempt },
        'a job failed and will be retried',
      );
      const waitMs = Math.round(handler.backoffMs(row.attempt));
      const again = {
        state: 'ready' as const,
        lease_owner: null,
        lease_until: null,
        last_error: reason,
        run_at: msFromNow(db, waitMs),
        wait_ms: waitMs,
      };
      await fenced(db.updateTable('job').set(again), row).execute();
      return;
    }
    this.#log.error(
      { err: error, job: row.id, kind: row.kind, attempt: row.attempt },
      'a job failed and will not be retried',
    );
    await db.transaction().execute(async (tx) => {
      const given =
        handler.keepFailed === true
          ? (
              await fenced(
                tx
                  .updateTable('job')
                  .set({ state: 'failed', lease_owner: null, lease_until: null, last_error: reason }),
                row,
              ).executeTakeFirst()
            ).numUpdatedRows
          : (await fenced(tx.deleteFrom('job'), row).executeTakeFirst()).numDeletedRows;
      if (given > 0n) await handler.onExhausted(tx, job, reason, error);
    });
  }

  /** Releases a job without counting the attempt, so that any server can claim it. */
  async #handBack(row: JobTable): Promise<void> {
    const again = {
      state: 'ready' as const,
      lease_owner: null,
      lease_until: null,
      attempt: row.attempt - 1,
      run_at: msFromNow(this.#database.db, 0),
      wait_ms: 0,
    };
    await fenced(this.#database.db.updateTable('job').set(again), row).execute();
  }

  async #renew(row: JobTable): Promise<boolean> {
    const renewed = await fenced(
      this.#database.db
        .updateTable('job')
        .set({ lease_until: msFromNow(this.#database.db, this.#lease), wait_ms: this.#lease }),
      row,
    ).executeTakeFirst();
    return renewed.numUpdatedRows > 0n;
  }
}

interface Claimed {
  row: JobTable;
  account: Account;
}

interface JobPool {
  slots: number;
  order: FairOrder;
  users: WaitingUsers;
  handlers: Map<string, JobHandler>;
  /** By job and attempt. */
  running: Map<string, { id: string; account: Account; abort: AbortController; ended: Promise<void> }>;
  claiming: Promise<void> | undefined;
  again: boolean;
}

/** Returns the result of `work`; rejects with the signal's reason if `work` takes longer than `graceMs` after the abort. */
async function unlessAborted<T>(work: Promise<T>, signal: AbortSignal, graceMs: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  let onAbort: (() => void) | undefined;
  const abandoned = new Promise<never>((_, reject) => {
    onAbort = () => (timer ??= setTimeout(() => reject(signal.reason as Error), graceMs));
    signal.addEventListener('abort', onAbort, { once: true });
  });
  try {
    return await Promise.race([work, abandoned]);
  } finally {
    clearTimeout(timer);
    if (onAbort !== undefined) signal.removeEventListener('abort', onAbort);
    // Abandoned work may still reject; that must not become an unhandled rejection.
    work.catch(() => undefined);
  }
}

/** Restricts a statement to the current lease owner and attempt of the job (fencing). */
function fenced<
  Q extends { where(column: 'id' | 'lease_owner' | 'attempt', operator: '=', value: string | number | null): Q },
>(query: Q, row: JobTable): Q {
  return query.where('id', '=', row.id).where('lease_owner', '=', row.lease_owner).where('attempt', '=', row.attempt);
}

/** `ms` milliseconds from now, by the clock that all servers share. */
function msFromNow(db: Db, ms: number): RawBuilder<number> {
  return sql<number>`${databaseNow(db)} + ${ms}`;
}

/** Enqueues a job in the caller's transaction. */
export async function enqueue(tx: Tx, job: NewJob): Promise<void> {
  await defer(tx, tx.insertInto('job').values(rowOf(tx, job)).execute());
  accepted.emit('job', job.delayMs ?? 0);
}

/** Enqueues several jobs in the caller's transaction, by one statement. */
export async function enqueueAll(tx: Tx, jobs: readonly NewJob[]): Promise<void> {
  if (jobs.length === 0) return;
  await defer(
    tx,
    tx
      .insertInto('job')
      .values(jobs.map((job) => rowOf(tx, job)))
      .execute(),
  );
  accepted.emit('job', Math.min(...jobs.map(({ delayMs = 0 }) => delayMs)));
}

function rowOf(tx: Tx, job: NewJob) {
  const delayMs = Math.round(job.delayMs ?? 0);
  return {
    id: randomUUID(),
    kind: job.kind,
    subject_id: job.subjectId,
    tenant: job.tenant,
    user_id: job.userId,
    payload: JSON.stringify(job.payload ?? {}),
    state: 'ready' as const,
    run_at: msFromNow(tx, delayMs),
    wait_ms: delayMs,
    attempt: 0,
    lease_owner: null,
    lease_until: null,
    last_error: null,
    created_at: Date.now(),
    trace: currentTrace(),
  };
}

/** Exponential backoff: `first`, 2 × `first`, 4 × …, at most `most` (milliseconds). */
export function exponentialBackoff(first: number, most: number): (attempt: number) => number {
  return (attempt) => Math.min(most, first * 2 ** (attempt - 1));
}
