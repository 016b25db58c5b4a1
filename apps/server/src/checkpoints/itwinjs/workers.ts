import { mkdirSync } from 'node:fs';
import path from 'node:path';
import type { IsolationLevel } from '../../domain.ts';
import type { ModelWorker } from './modelWorker.ts';

/** A place for one piece of work at a time, and the folder that is all of this machine that its iTwin.js process sees. */
export interface WorkSlot {
  worker: ModelWorker;
  folder: string;
}

/**
 * The places for work with iTwin.js: each works on one file at a time and sees the folder of its own, so that a hostile file
 * neither holds up nor reads another one. Processes and folders are made when they are needed.
 */
export class Workers {
  readonly #folder: string;
  readonly #most: number;
  readonly #workerFor: (folder: string, slot: number) => ModelWorker;
  readonly #slots: WorkSlot[] = [];
  readonly #idle: WorkSlot[] = [];
  /** In order of arrival. */
  readonly #waiting = new Set<(slot: WorkSlot) => void>();

  /**
   * @param folder where each slot gets a folder of its own
   * @param slots pieces of work at a time
   * @param workerFor makes the worker of a slot
   */
  constructor(folder: string, slots: number, workerFor: (folder: string, slot: number) => ModelWorker) {
    this.#folder = folder;
    this.#most = slots;
    this.#workerFor = workerFor;
    // The first one is made at once: whether and how it can be isolated is told at the start.
    this.#idle.push(this.#make());
  }

  /** The isolation of iTwin.js from everything else on its machine. @throws IsolationError, or what keeps it from being known */
  async level(): Promise<IsolationLevel> {
    return this.#first.level();
  }

  /** The version of iTwin.js. */
  async version(): Promise<string> {
    return this.#first.version();
  }

  /** The processes that are there at the moment, for tests that end them. */
  get pids(): number[] {
    return this.#slots.flatMap(({ worker }) => worker.pid ?? []);
  }

  /**
   * Does some work in a slot, as soon as one is free.
   * @throws the reason of the signal, when it is aborted before
   */
  async use<T>(signal: AbortSignal, work: (slot: WorkSlot) => Promise<T>): Promise<T> {
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

  /** Ends all workers: what does not end within `graceMs` is killed. */
  async stop(graceMs: number): Promise<void> {
    await Promise.all(this.#slots.map(({ worker }) => worker.stop(graceMs)));
  }

  /** Ends all workers at once. */
  kill(): void {
    for (const { worker } of this.#slots) worker.kill();
  }

  get #first(): ModelWorker {
    return (this.#slots[0] as WorkSlot).worker;
  }

  #next(signal: AbortSignal): Promise<WorkSlot> {
    return new Promise((resolve, reject) => {
      const take = (slot: WorkSlot): void => {
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

  #make(): WorkSlot {
    const index = this.#slots.length;
    const folder = path.join(this.#folder, `slot-${index}`);
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    const slot = { folder, worker: this.#workerFor(folder, index) };
    this.#slots.push(slot);
    return slot;
  }
}
