import type { Execution } from './connection.ts';
import { GroupWriter } from './groupWriter.ts';
import { LostTransactionError, WriterUnavailableError } from './errors.ts';
import type { Request } from './requests.ts';
import { StatementThread } from './statementThread.ts';

/** Timeouts, milliseconds. */
export interface WriterLimits {
  /** For acquiring a turn. */
  turnMs: number;
  /** For the answer to a statement or a sync, and between two statements of a transaction. */
  statementMs: number;
}

/**
 * Where a transaction runs: `main` on the main thread, whose statements of a few microseconds need no messages and whose commits
 * share a sync; `thread` in a thread of its own, for transactions that change many rows.
 */
export type Lane = 'main' | 'thread';

/** Interval of the timeout checks: precise enough for timeouts of many seconds, and cheaper than a timer per statement. */
const sweepMs = 500;

/** A log longer than this many pages of 4 KiB is moved as a whole, for which other transactions wait some milliseconds. */
const longLogPages = 4000;

interface Waiting {
  since: number;
  grant: () => void;
  reject: (error: Error) => void;
}

/** Executes a request on the connection of a lane. @param settled called when it has ended, even if the caller stopped waiting */
type Execute = (request: Request, settled: () => void) => Promise<Execution>;

/**
 * Exclusive right to write, of one caller. The next turn begins when this one has ended and all of its requests have been answered,
 * so that no statement ever runs in the transaction of another caller.
 */
export class Turn {
  readonly #execute: Execute;
  readonly #passOn: () => void;
  #ended = false;
  #pending = 0;
  #abandoned = false;
  /** Time of the last request or answer, on the monotonic clock. */
  #activeAt = performance.now();

  constructor(execute: Execute, passOn: () => void) {
    this.#execute = execute;
    this.#passOn = passOn;
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** @throws SqliteError, WriterUnavailableError, LostTransactionError */
  ask(request: Request): Promise<Execution> {
    return this.#ended ? Promise.reject(new LostTransactionError()) : this.#post(request);
  }

  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    // A request is still running although its caller has given up waiting: it must not leave a transaction open.
    if (this.#pending > 0 || this.#abandoned) this.#post({ kind: 'rollback' }).catch(() => undefined);
    if (this.#pending === 0) this.#passOn();
  }

  /** Ends a transaction that has been idle for too long. */
  expire(now: number, statementMs: number): void {
    if (this.#ended || this.#pending > 0 || now - this.#activeAt < statementMs) return;
    this.#abandoned = true;
    this.end();
  }

  #post(request: Request): Promise<Execution> {
    this.#pending++;
    const answer = this.#execute(request, () => {
      this.#pending--;
      this.#activeAt = performance.now();
      if (this.#ended && this.#pending === 0) this.#passOn();
    });
    answer.catch((error: unknown) => (this.#abandoned ||= error instanceof WriterUnavailableError));
    return answer;
  }
}

/** The writing side of the embedded database: a queue of turns over both lanes. */
export class Writer {
  #limits: WriterLimits;
  readonly #main: GroupWriter;
  readonly #thread: StatementThread;
  readonly #waiting: Waiting[] = [];
  readonly #sweep: NodeJS.Timeout;
  #current: { turn: Turn; lane: Lane } | undefined;
  #movingLog = false;
  #turns = 0;
  #closed = false;

  constructor(file: string, limits: WriterLimits) {
    this.#limits = limits;
    this.#thread = new StatementThread(file, 'writer', () => this.#limits.statementMs);
    this.#main = new GroupWriter(file, {
      moveLog: (how) => this.#moveLog(how),
      longestWaitMs: () => this.#limits.statementMs,
    });
    this.#sweep = setInterval(() => this.#enforceLimits(), sweepMs);
    this.#sweep.unref();
  }

  /** Acquires a turn, first come, first served. @throws WriterUnavailableError after the timeout */
  turn(lane: Lane = 'main'): Promise<Turn> {
    if (this.#closed) return Promise.reject(new WriterUnavailableError('the database is closed'));
    if (this.#current === undefined) return Promise.resolve(this.#begin(lane));
    return new Promise((resolve, reject) =>
      this.#waiting.push({ since: performance.now(), grant: () => resolve(this.#begin(lane)), reject }),
    );
  }

  /** Executes one statement, or one script without parameters or rows, outside of transactions. It is durable afterwards. */
  async alone(
    kind: 'alone' | 'script',
    sql: string,
    parameters: readonly unknown[] = [],
    lane: Lane = 'main',
  ): Promise<Execution> {
    const turn = await this.turn(lane);
    let result: Execution;
    try {
      result = await turn.ask({ kind, sql, parameters });
    } finally {
      turn.end();
    }
    await this.durable(lane);
    return result;
  }

  /** Resolves when the transaction that a lane has just committed is durable. @throws WriterUnavailableError if that is unknown */
  durable(lane: Lane): Promise<void> {
    // The thread syncs each of its commits.
    return lane === 'main' ? this.#main.durable() : Promise.resolve();
  }

  /** Number of turns that have ended. As long as it is the same, this process has committed nothing. */
  get turns(): number {
    return this.#turns;
  }

  /** Resolves when everything that a read can see now is durable; undefined if it is. */
  get settling(): Promise<void> | undefined {
    return this.#main.settling;
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
    await this.#thread.terminate();
  }

  /** Resolves if commits can be made durable, regardless of the current turn. @throws WriterUnavailableError, or the error of opening the file */
  async answers(): Promise<void> {
    await this.#main.answers();
  }

  /** Waits for the pending turns and closes both connections; closing again has no effect. */
  async close(): Promise<void> {
    if (this.#closed) return;
    const turn = await this.turn();
    this.#closed = true;
    clearInterval(this.#sweep);
    for (const { reject } of this.#waiting.splice(0)) reject(new WriterUnavailableError('the database is closed'));
    await this.#thread.close();
    await this.#main.close();
    turn.end();
  }

  #begin(lane: Lane): Turn {
    const execute: Execute =
      lane === 'main'
        ? (request, settled) => this.#main.execute(request).finally(settled)
        : (request, settled) => this.#thread.post(request, settled);
    const turn: Turn = new Turn(execute, () => {
      this.#turns++;
      if (this.#current?.turn === turn) this.#next();
    });
    this.#current = { turn, lane };
    return turn;
  }

  #next(): void {
    this.#current = undefined;
    this.#waiting.shift()?.grant();
  }

  /**
   * Moves the contents of the write-ahead log into the database, in the thread, because that syncs both files. `whenQuiet` first
   * moves what it can beside other transactions; if the log has become long, it moves the rest in a turn of its own, after
   * which the next transaction begins the log anew. `now` resolves only if the whole log has been moved.
   */
  async #moveLog(how: 'whenQuiet' | 'now'): Promise<void> {
    if (how === 'now') {
      if (pagesLeft(await this.#thread.post({ kind: 'moveLog' })) > 0)
        throw new WriterUnavailableError('the log is in use');
      return;
    }
    // A transaction of the thread moves the log itself when it commits.
    if (this.#movingLog || this.#current?.lane === 'thread') return;
    this.#movingLog = true;
    try {
      if (logLength(await this.#thread.post({ kind: 'moveLog' })) < longLogPages) return;
      const turn = await this.turn('thread');
      try {
        await turn.ask({ kind: 'moveLog' });
      } finally {
        turn.end();
      }
    } catch {
      // The log stays as it is: nothing is lost, and the next commits try again.
    } finally {
      this.#movingLog = false;
    }
  }

  #enforceLimits(): void {
    const now = performance.now();
    const { turnMs, statementMs } = this.#limits;
    this.#current?.turn.expire(now, statementMs);
    while (this.#waiting[0] !== undefined && now - this.#waiting[0].since > turnMs)
      this.#waiting.shift()?.reject(new WriterUnavailableError(`the database was busy for ${turnMs} ms`));
  }
}

/** Pages in the log, moved or not: the log begins anew only when a transaction finds all of them moved. */
function logLength({ rows }: Execution): number {
  return (rows[0] as { log: number }).log;
}

/** The length of the log if a part of it could not be moved, in pages; 0 if all of it has been moved. */
function pagesLeft({ rows }: Execution): number {
  const { log, checkpointed } = rows[0] as { log: number; checkpointed: number };
  return log > checkpointed ? log : 0;
}
