import { mkdirSync } from 'node:fs';
import path from 'node:path';
import type { IsolationLevel } from '../../domain.ts';
import type { ModelWorker } from './modelWorker.ts';
import type { WorkRequest, WorkResult } from './worker.ts';

/** A slot for one request at a time. Its iTwin.js process can access only the slot's folder. */
export interface WorkSlot<Request = WorkRequest, Result = WorkResult> {
  worker: ModelWorker<Request, Result>;
  folder: string;
}

/**
 * The slots for work with iTwin.js. Each processes one file at a time and can access only its own folder, so that a
 * malicious file can neither block nor read another one. Processes and folders are created on demand.
 */
export class Workers<Request = WorkRequest, Result = WorkResult> {
  readonly #folder: string;
  readonly #most: number;
  readonly #workerFor: (folder: string, slot: number) => ModelWorker<Request, Result>;
  readonly #slots: WorkSlot<Request, Result>[] = [];
  readonly #idle: WorkSlot<Request, Result>[] = [];
  /** In order of arrival. */
  readonly #waiting = new Set<(slot: WorkSlot<Request, Result>) => void>();

  /**
   * @param folder parent of the slots' folders
   * @param slots maximum number of slots
   * @param workerFor creates the worker of a slot
   */
  constructor(
    folder: string,
    slots: number,
    workerFor: (folder: string, slot: number) => ModelWorker<Request, Result>,
  ) {
    this.#folder = folder;
    this.#most = slots;
    this.#workerFor = workerFor;
    // The first slot is created immediately, because the server reports its isolation at startup.
    this.#idle.push(this.#make());
  }

  /** The isolation level of the iTwin.js processes. @throws IsolationError; any error that prevents the check */
  async level(): Promise<IsolationLevel> {
    return this.#first.level();
  }

  /** The version of iTwin.js. */
  async version(): Promise<string> {
    return this.#first.version();
  }

  /** Ids of the running processes, for tests that kill them. */
  get pids(): number[] {
    return this.#slots.flatMap(({ worker }) => worker.pid ?? []);
  }

  /**
   * Runs work in a slot as soon as one is free.
   * @throws the reason of the signal if it is aborted before
   */
  async use<T>(signal: AbortSignal, work: (slot: WorkSlot<Request, Result>) => Promise<T>): Promise<T> {
    signal.throwIfAborted();
    const slot = this.#idle.pop() ?? (this.#slots.length < this.#most ? this.#make() : await this.#next(signal));
    try {
      return await work(slot);
    } finally {
      const [next] = this.#waiting;
      if (next === undefined) this.#idle.push(slot);
      else next(slot);
    }
  }

  /** Stops all workers; kills those that run longer than `graceMs`. */
  async stop(graceMs: number): Promise<void> {
    await Promise.all(this.#slots.map(({ worker }) => worker.stop(graceMs)));
  }

  /** Kills all workers. */
  kill(): void {
    for (const { worker } of this.#slots) worker.kill();
  }

  get #first(): ModelWorker<Request, Result> {
    return (this.#slots[0] as WorkSlot<Request, Result>).worker;
  }

  #next(signal: AbortSignal): Promise<WorkSlot<Request, Result>> {
    return new Promise((resolve, reject) => {
      const take = (slot: WorkSlot<Request, Result>): void => {
        this.#waiting.delete(take);
        signal.removeEventListener('abort', onAbort);
        resolve(slot);
      };
      const onAbort = (): void => {
        this.#waiting.delete(take);
        reject(signal.reason as Error);
      };
      signal.addEventListener('abort', onAbort, { once: true });
      this.#waiting.add(take);
    });
  }

  #make(): WorkSlot<Request, Result> {
    const index = this.#slots.length;
    const folder = path.join(this.#folder, `slot-${index}`);
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    const slot = { folder, worker: this.#workerFor(folder, index) };
    this.#slots.push(slot);
    return slot;
  }
}
