import { closeSync, fdatasync, fstatSync, openSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { openConnection, type Connection, type Execution } from './connection.ts';
import { LostTransactionError, WriterUnavailableError } from './errors.ts';
import { answer, EndedTransactionError, type Request } from './requests.ts';
import { SharedSync } from './sharedSync.ts';

interface Parts {
  /** Moves the contents of the write-ahead log into the database; `now` rejects if that fails. */
  moveLog: (how: 'whenQuiet' | 'now') => Promise<void>;
  /** Longest time to wait for another process or for a sync, milliseconds. */
  longestWaitMs: () => number;
}

/** Changed rows and commits after which the log is moved: about 1,000 pages of 4 KiB, SQLite's own default. */
const changesPerMove = 500;
const sqliteBusy = 5;
const longestPauseMs = 20;

/**
 * The connection of the main thread. Statements take microseconds, so they need no thread; a commit writes to the log only, and one
 * `fdatasync` outside of the main thread makes all commits durable that were written before it began. A commit is reported to its
 * caller after that sync.
 */
export class GroupWriter {
  readonly #file: string;
  readonly #parts: Parts;
  #opened: Connection | undefined;
  readonly #sync: SharedSync;
  #logHandle: number | undefined;
  #changes = 0;
  /** A sync has failed: the kernel may have dropped the pages, so a later sync proves nothing. */
  #syncFailed = false;

  constructor(file: string, parts: Parts) {
    this.#file = file;
    this.#parts = parts;
    this.#sync = new SharedSync(() => this.#syncLog());
  }

  /** @throws the error of SQLite, with its `errcode`; LostTransactionError */
  async execute(request: Request): Promise<Execution> {
    if (this.#syncFailed && (request.kind === 'begin' || request.kind === 'alone')) await this.#recover();
    const until = performance.now() + Math.min(this.#parts.longestWaitMs(), 5000);
    for (let pauseMs = 1; ; pauseMs = Math.min(2 * pauseMs, longestPauseMs)) {
      try {
        const result = answer((this.#opened ??= openConnection(this.#file, 'groupWriter')), request);
        this.#changes += request.kind === 'commit' ? 1 : result.changes;
        return result;
      } catch (error) {
        if (error instanceof EndedTransactionError) throw new LostTransactionError(error.message);
        // Only another process can hold the lock, such as a command beside the server.
        const isBusy = ((error as { errcode?: number }).errcode ?? 0) % 256 === sqliteBusy;
        const mayWait = (request.kind === 'begin' || request.kind === 'alone') && performance.now() < until;
        if (!isBusy || !mayWait) throw error;
        await sleep(pauseMs);
      }
    }
  }

  /** @throws WriterUnavailableError if it is unknown whether what was written is durable */
  durable(): Promise<void> {
    if (this.#changes >= changesPerMove) {
      this.#changes = 0;
      void this.#parts.moveLog('whenQuiet');
    }
    return this.#sync.written();
  }

  get settling(): Promise<void> | undefined {
    return this.#sync.pending;
  }

  /** @throws WriterUnavailableError if commits cannot be made durable, or the error of opening the file */
  async answers(): Promise<void> {
    if (this.#syncFailed) await this.#recover();
    this.#opened ??= openConnection(this.#file, 'groupWriter');
    await this.#sync.written();
  }

  async close(): Promise<void> {
    await this.#sync.pending?.catch(() => undefined);
    this.#opened?.close();
    if (this.#logHandle !== undefined) closeSync(this.#logHandle);
    this.#logHandle = undefined;
  }

  async #syncLog(): Promise<void> {
    try {
      await this.#syncHandle(this.#openLog());
    } catch {
      this.#syncFailed = true;
      await this.#recover();
    }
  }

  /** Makes the contents of the log durable by another way: the database file gets them, and is synced. */
  async #recover(): Promise<void> {
    try {
      await this.#parts.moveLog('now');
      this.#syncFailed = false;
    } catch (cause) {
      throw new WriterUnavailableError('the disk did not confirm what was written', { cause });
    }
  }

  #syncHandle(handle: number): Promise<void> {
    const limitMs = this.#parts.longestWaitMs();
    return new Promise((resolve, reject) => {
      const timer = Number.isFinite(limitMs)
        ? setTimeout(() => reject(new WriterUnavailableError(`the disk did not answer within ${limitMs} ms`)), limitMs)
        : undefined;
      fdatasync(handle, (error) => {
        clearTimeout(timer);
        if (error === null) resolve();
        else reject(error);
      });
    });
  }

  /** SQLite makes the log anew after the last connection was closed. */
  #openLog(): number {
    if (this.#logHandle !== undefined && fstatSync(this.#logHandle).nlink > 0) return this.#logHandle;
    if (this.#logHandle !== undefined) closeSync(this.#logHandle);
    this.#logHandle = undefined;
    this.#logHandle = openSync(`${this.#file}-wal`, 'r');
    return this.#logHandle;
  }
}
