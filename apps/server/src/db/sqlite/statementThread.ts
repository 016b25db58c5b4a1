import { Worker } from 'node:worker_threads';
import type { ConnectionUse, Execution } from './connection.ts';
import { LostTransactionError, SqliteError, WriterUnavailableError } from './errors.ts';
import type { Request } from './requests.ts';
import type { ThreadReply } from './thread.ts';

interface Pending {
  since: number;
  resolve: (value: Execution) => void;
  reject: (error: Error) => void;
  /** Called when the thread has answered, which may be long after the caller's timeout. */
  settled: () => void;
}

/** Interval of the checks for timeouts and idle threads. */
const sweepMs = 500;
/** An idle thread ends after this time, milliseconds: each one takes about 10 MiB of memory. */
const idleMs = 30_000;

/** Executes requests, in order, in a worker thread that starts when it is needed. A thread that ends is replaced. */
export class StatementThread {
  readonly #file: string;
  readonly #use: ConnectionUse;
  readonly #limitMs: () => number;
  readonly #pending = new Map<number, Pending>();
  #worker: Worker | undefined;
  /** Resolves when the threads that ended because they were idle have closed their connections. */
  #ended: Promise<unknown> = Promise.resolve();
  #lastId = 0;
  #usedAt = 0;
  #sweep: NodeJS.Timeout | undefined;
  #closed = false;

  /** @param limitMs longest time for the answer to a statement, milliseconds */
  constructor(file: string, use: ConnectionUse, limitMs: () => number) {
    this.#file = file;
    this.#use = use;
    this.#limitMs = limitMs;
  }

  /**
   * @param settled called when the thread has answered or ended, even if the caller has already received an error
   * @throws SqliteError, WriterUnavailableError, LostTransactionError
   */
  post(request: Request, settled: () => void = () => undefined): Promise<Execution> {
    return new Promise((resolve, reject) => {
      const id = ++this.#lastId;
      if (this.#closed) {
        settled();
        reject(new WriterUnavailableError('the database is closed'));
        return;
      }
      try {
        this.#worker ??= this.#start();
        // Referenced only while an answer is pending, so that an idle thread does not keep the process alive.
        if (this.#pending.size === 0) this.#worker.ref();
        this.#pending.set(id, { since: performance.now(), resolve, reject, settled });
        this.#worker.postMessage({ id, ...request });
      } catch (error) {
        // The request contains a value that cannot be cloned.
        this.#forget(id);
        settled();
        reject(error instanceof Error ? error : new Error(String(error)));
      }
    });
  }

  /** Terminates the thread at once, as a crash would. The next request starts a new one. */
  async terminate(): Promise<void> {
    await this.#worker?.terminate();
  }

  /** Ends the thread after its pending requests; closing again has no effect. */
  async close(): Promise<void> {
    this.#closed = true;
    clearInterval(this.#sweep);
    await this.#ended;
    if (this.#worker !== undefined) await close(this.#worker);
  }

  #start(): Worker {
    // From the sources this is thread.ts, from the build thread.js: the same ending as this module.
    const ending = import.meta.url.slice(import.meta.url.lastIndexOf('.'));
    const worker = new Worker(new URL(`./thread${ending}`, import.meta.url), {
      workerData: { file: this.#file, use: this.#use },
    });
    worker.on('message', (reply: ThreadReply) => {
      const pending = this.#forget(reply.id);
      if (pending === undefined) return;
      if (!('error' in reply)) pending.resolve(reply);
      else
        pending.reject(
          reply.error.transactionEnded
            ? new LostTransactionError(reply.error.message)
            : new SqliteError(reply.error.message, reply.error.errcode),
        );
      pending.settled();
    });
    let cause: Error | undefined;
    worker.on('error', (error: Error) => (cause = error));
    // Its connection is closed with it, which rolls back an open transaction. The next request starts a new thread.
    worker.on('exit', () => {
      if (this.#worker !== worker) return;
      this.#worker = undefined;
      for (const [id, pending] of [...this.#pending]) {
        this.#pending.delete(id);
        pending.reject(
          cause !== undefined && 'errcode' in cause
            ? new SqliteError(cause.message, cause.errcode as number)
            : new WriterUnavailableError(
                `the thread of the database has ended${cause === undefined ? '' : `: ${cause.message}`}`,
              ),
        );
        pending.settled();
      }
    });
    worker.unref();
    this.#sweep ??= setInterval(() => this.#enforceLimits(), sweepMs).unref();
    return worker;
  }

  #enforceLimits(): void {
    const now = performance.now();
    const limitMs = this.#limitMs();
    // The entries of requests that were abandoned stay until the thread answers: only then is their effect known.
    for (const { since, reject } of this.#pending.values())
      if (now - since > limitMs) reject(new WriterUnavailableError(`the database did not answer within ${limitMs} ms`));
    if (this.#worker === undefined || this.#pending.size > 0 || now - this.#usedAt < idleMs) return;
    const worker = this.#worker;
    this.#worker = undefined;
    this.#ended = Promise.all([this.#ended, close(worker)]);
  }

  #forget(id: number): Pending | undefined {
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    this.#usedAt = performance.now();
    // A thread that is being closed is waited for, so it stays referenced.
    if (this.#pending.size === 0 && !this.#closed) this.#worker?.unref();
    return pending;
  }
}

/** Makes a thread close its connection and end. */
async function close(worker: Worker): Promise<void> {
  const ended = new Promise<void>((resolve) => worker.once('exit', () => resolve()));
  worker.ref();
  worker.postMessage('close');
  await ended;
}
