import { randomUUID } from 'node:crypto';
import { EventEmitter } from 'node:events';
import type { FastifyBaseLogger } from 'fastify';
import { SpanKind } from '@opentelemetry/api';
import { sql, type RawBuilder } from 'kysely';
import { databaseNow } from '../db/clock.ts';
import type { Database, Db, Tx } from '../db/database.ts';
import { outsideRequest } from '../db/requestOutcomes.ts';
import type { JobTable } from '../db/schema.ts';
import { isOver, waitingJobs } from '../db/statements/waitingJobs.ts';
import { continuing, currentTrace, traced } from '../traces/traces.ts';
import { FairOrder, type Account } from './fairOrder.ts';
import { FinalError, PublicError, reasonForUsers } from './reasons.ts';
import { within } from './within.ts';

/** A job that is to run once what accepts it is committed. */
export interface NewJob {
  kind: string;
  subjectId: string;
  /** iTwin that it is for. */
  tenant: string;
  /** User on whose account it runs. */
  userId: string;
  payload?: unknown;
  /** Milliseconds from now before which it does not run. */
  delayMs?: number;
}

/** A job in the hands of its handler. */
export interface RunningJob {
  id: string;
  subjectId: string;
  tenant: string;
  userId: string;
  payload: unknown;
  /** 1 for the first. */
  attempt: number;
  /** Why the attempt before failed. */
  lastError: string | null;
  /** Aborted when the lease is lost or the server ends: what follows would not count. */
  signal: AbortSignal;
  /** To be called whenever the job gets on; one that is silent for too long is abandoned and tried again. */
  onProgress: () => void;
}

/** What a job changes, all in the transaction that ends it: it happens once, however often the job ran. */
export type Effect = (tx: Tx) => Promise<void>;

export interface JobHandler {
  kind: string;
  /** Attempts until it is given up. */
  attempts: number;
  /** Wait before attempt n + 1, milliseconds. */
  backoffMs(attempt: number): number;
  /** Does the work. What it throws is tried again, a `FinalError` is not. */
  run(job: RunningJob): Promise<Effect>;
  /** Judges, in the transaction that ends the job, whether its effect may still count. @throws FinalError, with which the job is given up */
  confirm?(tx: Tx, job: Pick<RunningJob, 'subjectId' | 'payload'>): Promise<void>;
  /** What follows when all attempts are spent. @param reason for users */
  onExhausted(
    tx: Tx,
    job: Pick<RunningJob, 'id' | 'subjectId' | 'payload'>,
    reason: string,
    error: Error,
  ): Promise<void>;
  /** Keeps the row of a given-up job as `failed`, for people to look at and start again. */
  keepFailed?: boolean;
}

/** Times of the engine, milliseconds; tests make them short. */
export interface JobTimes {
  lease: number;
  renew: number;
  poll: number;
  /** Longest time without progress. */
  progress: number;
}
const standardTimes: JobTimes = { lease: 30_000, renew: 10_000, poll: 1000, progress: 300_000 };
/** A job is looked for this long after it was accepted: by then its transaction is committed, or else the next look finds it. */
const commitMs = 30;

/** How long a job may take to end once it was told to; then it is abandoned: it may go on, but nobody waits for it and nothing of it counts. */
const abortMs = 2000;
/** How long a job is due, with none of its kind running, until nobody seems to run it. */
const unservedMs = 600_000;
/** How long a stopping server tries to hand back what it has; what it cannot is taken over when its lease has run out. */
const handBackMs = 1000;

/** A job was abandoned because it made no progress. */
class StalledJobError extends PublicError {
  constructor(seconds: number) {
    super(`There was no progress for ${seconds} s.`);
    this.name = 'StalledJobError';
  }
}

/** The lease of a job was lost; somebody else may run it by now. */
class LeaseLostError extends Error {
  constructor() {
    super('the lease was lost');
    this.name = 'LeaseLostError';
  }
}

/** Tells every engine of this process that a job was accepted, and how long it has to wait. */
const accepted = new EventEmitter<{ job: [delayMs: number] }>();
accepted.setMaxListeners(0);

/**
 * Durable jobs in a table of our own: accepted in the transaction of whoever wants them, claimed with `SKIP LOCKED`, run at
 * least once, and counted exactly once: the effect of a run and the end of its job are one transaction, fenced by lease
 * owner and attempt. The lease lasts 30 s and is renewed every 10 s from a timer; what a dead server held is taken over
 * when it runs out, so within 31 s.
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

  /** Lets this server run jobs of some kinds, `slots` of them at a time, in a fair order among users and organizations (`FairOrder`). */
  handle(slots: number, handlers: readonly JobHandler[]): void {
    this.#pools.push({
      slots,
      order: new FairOrder(slots),
      handlers: new Map(handlers.map((handler) => [handler.kind, handler])),
      running: new Map(),
      claiming: undefined,
      again: false,
    });
  }

  /** Makes every job that was running ready again: for the start of a server that runs alone on its database. */
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
    // Longer waits are left to the regular look.
    if (delayMs < this.#times.poll) setTimeout(() => this.wake(), delayMs + commitMs).unref();
  };

  /** Looks for due jobs now. */
  wake(): void {
    if (this.#timer === undefined || this.#stopping) return;
    // A request may wake the engine; what jobs do is no part of it.
    outsideRequest(() => this.#pools.forEach((pool) => this.#fill(pool)));
  }

  /**
   * Ends: takes no more, waits for what runs at most `graceMs`, and hands the rest back for others to begin at once. Whatever
   * hangs, it returns within `graceMs` and 3 s.
   */
  async stop(graceMs: number): Promise<void> {
    this.#stopping = true;
    clearInterval(this.#timer);
    accepted.off('job', this.#onAccepted);
    // A claim under way is handed back as soon as it is known.
    await within(Promise.all(this.#pools.flatMap(({ claiming }) => claiming ?? [])), Math.max(graceMs, abortMs));
    const running = this.#pools.flatMap((pool) => [...pool.running.values()]);
    if (running.length === 0) return;
    const ended = Promise.allSettled(running.map((job) => job.ended));
    await within(ended, graceMs);
    for (const { abort } of running) abort.abort(new Error('the server ends'));
    await within(ended, abortMs + handBackMs);
  }

  /**
   * Kinds of jobs that are due and that no server seems to run: by itself where there is one server, else when a job has been due
   * for ten minutes and none of its kind runs anywhere.
   */
  async unserved(): Promise<string[]> {
    const { watchDb: db, engine } = this.#database;
    const alone = engine === 'sqlite';
    const now = databaseNow(db);
    const own = this.#pools.flatMap(({ slots, handlers }) => (slots > 0 ? [...handlers.keys()] : []));
    const { rows } = await sql<{
      kind: string;
    }>`select distinct kind from job where state = 'ready' and run_at <= ${now} - ${alone ? 0 : unservedMs}
      and not exists (select 1 from job as other where other.kind = job.kind and other.state = 'running') order by kind`.execute(
      db,
    );
    return rows.map(({ kind }) => kind).filter((kind) => !alone || !own.includes(kind));
  }

  #fill(pool: JobPool): void {
    // One claim at a time; a wake-up that comes meanwhile is not lost.
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
      this.#log.error({ err: error }, 'cannot look for jobs; tried again soon');
    }
  }

  /** Takes the job whose turn it is. */
  async #claim(pool: JobPool): Promise<Claimed | undefined> {
    const running = [...pool.running.values()];
    // A clock that was set ahead ends leases early; what still runs here is not begun a second time.
    const here = { owner: this.#owner, ids: running.map(({ id }) => id) };
    const waiting = await waitingJobs(this.#database.db, [...pool.handlers.keys()], here);
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
    // A job whose lease was lost may run here twice at a time.
    const run = `${row.id}/${row.attempt}`;
    const renewing = setInterval(() => {
      this.#renew(row).then(
        (held) => held || abort.abort(new LeaseLostError()),
        (error: unknown) => this.#log.warn({ err: error, job: row.id }, 'cannot renew the lease of a job; tried again'),
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
          'the end of a job could not be written; its lease runs out and it runs again',
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
        continuing(row.trace),
        SpanKind.CONSUMER,
      );
    } catch (error) {
      await this.#failed(handler, job, row, error as Error);
      return;
    }
    try {
      await this.#database.db.transaction().execute(async (tx) => {
        const ended = await fenced(tx.deleteFrom('job'), row).executeTakeFirst();
        if (ended.numDeletedRows === 0n) return; // Taken over meanwhile: the other run counts.
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
    // Nothing more can be said of a job that is somebody else's.
    if (job.signal.reason instanceof LeaseLostError) return;
    const { db } = this.#database;
    const reason = reasonForUsers(error, row.id);
    if (!(error instanceof FinalError) && row.attempt < handler.attempts) {
      this.#log.warn(
        { err: error, job: row.id, kind: row.kind, attempt: row.attempt },
        'a job failed; it is tried again',
      );
      const waitMs = Math.round(handler.backoffMs(row.attempt));
      const again = {
        state: 'ready' as const,
        lease_owner: null,
        lease_until: null,
        last_error: reason,
        run_at: later(db, waitMs),
        wait_ms: waitMs,
      };
      await fenced(db.updateTable('job').set(again), row).execute();
      return;
    }
    this.#log.error({ err: error, job: row.id, kind: row.kind, attempt: row.attempt }, 'a job was given up');
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

  /** Gives a job to whoever looks next, as if it had not been begun. */
  async #handBack(row: JobTable): Promise<void> {
    const again = {
      state: 'ready' as const,
      lease_owner: null,
      lease_until: null,
      attempt: row.attempt - 1,
      run_at: later(this.#database.db, 0),
      wait_ms: 0,
    };
    await fenced(this.#database.db.updateTable('job').set(again), row).execute();
  }

  async #renew(row: JobTable): Promise<boolean> {
    const renewed = await fenced(
      this.#database.db
        .updateTable('job')
        .set({ lease_until: later(this.#database.db, this.#lease), wait_ms: this.#lease }),
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
  handlers: Map<string, JobHandler>;
  /** By job and attempt. */
  running: Map<string, { id: string; account: Account; abort: AbortController; ended: Promise<void> }>;
  claiming: Promise<void> | undefined;
  again: boolean;
}

/** What some work gives; rejects with the reason of the signal when it goes on for longer than `graceMs` after the signal. */
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
    // It may still fail later, with nobody waiting.
    work.catch(() => undefined);
  }
}

/** Only for whoever holds this attempt of the job. */
function fenced<
  Q extends { where(column: 'id' | 'lease_owner' | 'attempt', operator: '=', value: string | number | null): Q },
>(query: Q, row: JobTable): Q {
  return query.where('id', '=', row.id).where('lease_owner', '=', row.lease_owner).where('attempt', '=', row.attempt);
}

/** So many milliseconds from now, by the clock that all servers compare with. */
function later(db: Db, ms: number): RawBuilder<number> {
  return sql<number>`${databaseNow(db)} + ${ms}`;
}

/** Accepts a job, in the transaction of whoever wants it. */
export async function enqueue(tx: Tx, job: NewJob): Promise<void> {
  const delayMs = Math.round(job.delayMs ?? 0);
  await tx
    .insertInto('job')
    .values({
      id: randomUUID(),
      kind: job.kind,
      subject_id: job.subjectId,
      tenant: job.tenant,
      user_id: job.userId,
      payload: JSON.stringify(job.payload ?? {}),
      state: 'ready',
      run_at: later(tx, delayMs),
      wait_ms: delayMs,
      attempt: 0,
      lease_owner: null,
      lease_until: null,
      last_error: null,
      created_at: Date.now(),
      trace: currentTrace(),
    })
    .execute();
  accepted.emit('job', job.delayMs ?? 0);
}

/** Doubling waits: `first`, 2 × `first`, 4 × …, at most `most` (milliseconds). */
export function exponentialBackoff(first: number, most: number): (attempt: number) => number {
  return (attempt) => Math.min(most, first * 2 ** (attempt - 1));
}
