import { Worker } from 'node:worker_threads';
import type { Execution } from './connection.ts';
import type { WriterReply, WriterRequest } from './writer.ts';
import { UnavailableError } from '../../outages.ts';

/** An SQLite error, with its extended result code. */
class SqliteError extends Error {
  readonly errcode: number | undefined;
  constructor(message: string, errcode: number | undefined) {
    super(message);
    this.name = 'SqliteError';
    this.errcode = errcode;
  }
}

/** The embedded database did not answer in time, or its writer thread has ended. Whether a statement took effect is unknown. */
export class WriterUnavailableError extends UnavailableError {
  constructor(message: string) {
    super(message);
    this.name = 'WriterUnavailableError';
  }
}

/** Thrown for a statement of a transaction that the database has already rolled back. None of it took effect. */
export class LostTransactionError extends UnavailableError {
  constructor(message = 'the transaction has ended already') {
    super(message);
    this.name = 'LostTransactionError';
  }
}

/** Timeouts, milliseconds. */
export interface WriterLimits {
  /** For acquiring a turn. */
  turnMs: number;
  /** For the answer to a statement, and between two statements of a transaction. */
  statementMs: number;
}

/** Interval of the timeout checks: precise enough for timeouts of many seconds, and cheaper than a timer per statement. */
const sweepMs = 500;

type Ask = WriterRequest extends infer R ? (R extends unknown ? Omit<R, 'id'> : never) : never;

interface Asked {
  since: number;
  resolve: (value: Execution) => void;
  reject: (error: Error) => void;
  /** Called when the thread has answered, which may be long after the caller's timeout. */
  settled: () => void;
}

interface Waiting {
  since: number;
  grant: (turn: Turn) => void;
  reject: (error: Error) => void;
}

/**
 * Exclusive use of the writer thread by one caller. The next turn begins when this one has ended and the thread has answered all of
 * its requests, so that no statement ever runs in the transaction of another caller.
 */
export class Turn {
  readonly #writer: Writer;
  #ended = false;
  #pending = 0;
  #abandoned = false;
  /** Time of the last request or answer, on the monotonic clock. */
  #activeAt = performance.now();

  constructor(writer: Writer) {
    this.#writer = writer;
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** @throws SqliteError, WriterUnavailableError, LostTransactionError */
  async ask(request: Ask): Promise<Execution> {
    if (this.#ended) throw new LostTransactionError();
    return this.#post(request);
  }

  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    // A request is still running although its caller has given up waiting: it must not leave a transaction open.
    if (this.#pending > 0 || this.#abandoned) this.#post({ kind: 'rollback' }).catch(() => undefined);
    this.#passOn();
  }

  /** Ends a transaction that has been idle for too long. */
  expire(now: number, statementMs: number): void {
    if (this.#ended || this.#pending > 0 || now - this.#activeAt < statementMs) return;
    this.#abandoned = true;
    this.end();
  }

  #post(request: Ask): Promise<Execution> {
    this.#pending++;
    this.#activeAt = performance.now();
    const answer = this.#writer.post(request, () => {
      this.#pending--;
      this.#activeAt = performance.now();
      if (this.#ended) this.#passOn();
    });
    answer.catch((error: unknown) => (this.#abandoned ||= error instanceof WriterUnavailableError));
    return answer;
  }

  #passOn(): void {
    if (this.#pending === 0) this.#writer.next(this);
  }
}

/** Client of the writer thread: a queue of turns and a request channel. A thread that ends is replaced. */
export class Writer {
  readonly #file: string;
  #limits: WriterLimits;
  readonly #asked = new Map<number, Asked>();
  readonly #waiting: Waiting[] = [];
  readonly #sweep: NodeJS.Timeout;
  #worker: Worker | undefined;
  #current: Turn | undefined;
  #lastId = 0;
  #closed = false;

  constructor(file: string, limits: WriterLimits) {
    this.#file = file;
    this.#limits = limits;
    this.#sweep = setInterval(() => this.#enforceLimits(), sweepMs);
    this.#sweep.unref();
  }

  /** Acquires a turn, first come, first served. @throws WriterUnavailableError after the timeout */
  turn(): Promise<Turn> {
    if (this.#current === undefined) {
      this.#current = new Turn(this);
      return Promise.resolve(this.#current);
    }
    return new Promise((grant, reject) => this.#waiting.push({ since: performance.now(), grant, reject }));
  }

  /** Starts the next turn. */
  next(ended: Turn): void {
    if (this.#current !== ended) return;
    const waiting = this.#waiting.shift();
    this.#current = waiting === undefined ? undefined : new Turn(this);
    if (waiting !== undefined) waiting.grant(this.#current as Turn);
  }

  /** Executes one statement, or one script without parameters or rows, outside of transactions. */
  async alone(kind: 'alone' | 'script', sql: string, parameters: readonly unknown[] = []): Promise<Execution> {
    const turn = await this.turn();
    try {
      return await turn.ask({ kind, sql, parameters });
    } finally {
      turn.end();
    }
  }

  /** Executes work without timeouts, such as the migrations of a large database before the server listens. */
  async withoutLimits<T>(work: () => Promise<T>): Promise<T> {
    const limits = this.#limits;
    this.#limits = { turnMs: Infinity, statementMs: Infinity };
    try {
      return await work();
    } finally {
      this.#limits = limits;
    }
  }

  /** Terminates the thread at once, as a crash would; for tests. The next request starts a new one. */
  async endThread(): Promise<void> {
    await this.#worker?.terminate();
  }

  /** Resolves when the thread answers, regardless of the current turn. @throws WriterUnavailableError, or the error of opening the file */
  async answers(): Promise<void> {
    await this.post({ kind: 'within', sql: 'select 1', parameters: [] }).catch((error: unknown) => {
      if (!(error instanceof LostTransactionError)) throw error;
    });
  }

  /** @param settled called when the thread has answered or ended, even if the caller has already received an error */
  post(request: Ask, settled: () => void = () => undefined): Promise<Execution> {
    return new Promise((resolve, reject) => {
      const id = ++this.#lastId;
      if (this.#closed) {
        settled();
        reject(new WriterUnavailableError('the database is closed'));
        return;
      }
      try {
        this.#worker ??= this.#startThread();
        // Referenced only while an answer is pending, so that an idle writer does not keep the process alive.
        if (this.#asked.size === 0) this.#worker.ref();
        this.#asked.set(id, { since: performance.now(), resolve, reject, settled });
        this.#worker.postMessage({ id, ...request });
      } catch (error) {
        // The request contains a value that cannot be cloned.
        this.#forget(id);
        settled();
        reject(error instanceof Error ? error : new Error(String(error)));
      }
    });
  }

  /** Ends the thread after the pending turns; closing again has no effect. */
  async close(): Promise<void> {
    if (this.#closed) return;
    const turn = await this.turn();
    this.#closed = true;
    clearInterval(this.#sweep);
    for (const { reject } of this.#waiting.splice(0)) reject(new WriterUnavailableError('the database is closed'));
    const worker = this.#worker;
    if (worker !== undefined) {
      const ended = new Promise<void>((resolve) => worker.once('exit', () => resolve()));
      worker.ref();
      worker.postMessage('close');
      await ended;
    }
    turn.end();
  }

  #startThread(): Worker {
    // From the sources this is writer.ts, from the build writer.js: the same ending as this module.
    const ending = import.meta.url.slice(import.meta.url.lastIndexOf('.'));
    const worker = new Worker(new URL(`./writer${ending}`, import.meta.url), { workerData: { file: this.#file } });
    worker.on('message', (reply: WriterReply) => {
      const asked = this.#forget(reply.id);
      if (asked === undefined) return;
      if (!('error' in reply)) asked.resolve(reply);
      else
        asked.reject(
          reply.error.transactionEnded
            ? new LostTransactionError(reply.error.message)
            : new SqliteError(reply.error.message, reply.error.errcode),
        );
      asked.settled();
    });
    let cause: Error | undefined;
    worker.on('error', (error: Error) => (cause = error));
    // Its connection is closed with it, which rolls back an open transaction. The next request starts a new thread.
    worker.on('exit', () => {
      if (this.#worker === worker) this.#worker = undefined;
      for (const [id, asked] of [...this.#asked]) {
        this.#asked.delete(id);
        asked.reject(
          cause !== undefined && 'errcode' in cause
            ? new SqliteError(cause.message, cause.errcode as number)
            : new WriterUnavailableError(
                `the writer thread has ended${cause === undefined ? '' : `: ${cause.message}`}`,
              ),
        );
        asked.settled();
      }
    });
    worker.unref();
    return worker;
  }

  #forget(id: number): Asked | undefined {
    const asked = this.#asked.get(id);
    this.#asked.delete(id);
    if (this.#asked.size === 0) this.#worker?.unref();
    return asked;
  }

  #enforceLimits(): void {
    const now = performance.now();
    const { turnMs, statementMs } = this.#limits;
    this.#current?.expire(now, statementMs);
    // The entries stay until the thread answers: only then does the turn end.
    for (const { since, reject } of this.#asked.values())
      if (now - since > statementMs)
        reject(new WriterUnavailableError(`the database did not answer within ${statementMs} ms`));
    while (this.#waiting[0] !== undefined && now - this.#waiting[0].since > turnMs)
      this.#waiting.shift()?.reject(new WriterUnavailableError(`the database was busy for ${turnMs} ms`));
  }
}
