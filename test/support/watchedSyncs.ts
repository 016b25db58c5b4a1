/**
 * Observes the syncs of files and folders by the stores of this process: those of file handles, and those of the threads that write
 * small files. Threads that are started afterwards load this module before their own.
 */
import fs from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import path from 'node:path';
import threads, {
  getEnvironmentData,
  isMainThread,
  setEnvironmentData,
  type Worker,
  type WorkerOptions,
} from 'node:worker_threads';

const shared = 'watched syncs';
/** Places of the shared numbers: whether syncs are held back, how many wait or have waited, how many of these may go on, how many have ended. */
const [held, waiting, released, ended] = [0, 1, 2, 3];
const mostSyncs = 10_000;

/** What the threads and the main thread share. */
interface Shared {
  counts: Int32Array;
  /** Inodes of what was synced, in the order in which the syncs ended. */
  inodes: Float64Array;
}

function newShared(): Shared {
  return {
    counts: new Int32Array(new SharedArrayBuffer(16)),
    inodes: new Float64Array(new SharedArrayBuffer(8 * mostSyncs)),
  };
}

/** Watches the syncs of this thread, which wait while syncs are held back. */
function watchThread({ counts, inodes }: Shared): void {
  const { fsyncSync } = fs;
  Object.assign(fs, {
    fsyncSync: (file: number) => {
      if (Atomics.load(counts, held) === 1) {
        const turn = Atomics.add(counts, waiting, 1);
        for (let may = Atomics.load(counts, released); may <= turn; may = Atomics.load(counts, released))
          Atomics.wait(counts, released, may);
      }
      fsyncSync(file);
      inodes[Atomics.add(counts, ended, 1)] = fs.fstatSync(file).ino;
    },
  });
  syncBuiltinESMExports();
}

if (!isMainThread) watchThread(getEnvironmentData(shared) as Shared);

/** The syncs of a process, from its construction to `remove`. */
export class WatchedSyncs {
  readonly #shared = newShared();
  readonly #handles = new Set<number>();
  readonly #restore: () => void;
  /** Syncs of file handles that wait; undefined while none is held back. */
  #heldBack: (() => void)[] | undefined;
  #clearedAt = 0;
  /** Threads that were started, by the file that they run. */
  readonly threads = new Map<string, Worker>();

  private constructor(prototype: Pick<FileHandle, 'sync' | 'datasync' | 'stat'>) {
    const { sync, datasync } = prototype;
    const { Worker } = threads;
    const started = this.threads;
    const watched = (original: () => Promise<void>, note: (inode: number) => void, hold: () => Promise<void>) =>
      async function (this: FileHandle): Promise<void> {
        const { ino } = await this.stat();
        await hold();
        await original.call(this);
        note(ino);
      };
    const note = (inode: number): void => void this.#handles.add(inode);
    const hold = async (): Promise<void> => {
      if (this.#heldBack !== undefined)
        await new Promise<void>((resolve) => this.#heldBack?.push(resolve) ?? resolve());
    };
    Object.assign(prototype, { sync: watched(sync, note, hold), datasync: watched(datasync, note, hold) });
    setEnvironmentData(shared, this.#shared);
    class WatchedWorker extends Worker {
      constructor(file: string | URL, options: WorkerOptions = {}) {
        super(file, { ...options, execArgv: ['--import', import.meta.url] });
        started.set(path.basename(String(file)), this);
      }
    }
    Object.assign(threads, { Worker: WatchedWorker });
    syncBuiltinESMExports();
    this.#restore = () => {
      Object.assign(prototype, { sync, datasync });
      Object.assign(threads, { Worker });
      syncBuiltinESMExports();
    };
  }

  /** @param folder any folder */
  static async start(folder: string): Promise<WatchedSyncs> {
    const handle = await open(folder, 'r');
    const prototype = Object.getPrototypeOf(handle) as Pick<FileHandle, 'sync' | 'datasync' | 'stat'>;
    await handle.close();
    return new WatchedSyncs(prototype);
  }

  /** Whether a file or folder was synced since the last call of `clear`. */
  has(inode: number): boolean {
    const { counts, inodes } = this.#shared;
    return this.#handles.has(inode) || inodes.subarray(this.#clearedAt, Atomics.load(counts, ended)).includes(inode);
  }

  clear(): void {
    this.#handles.clear();
    this.#clearedAt = Atomics.load(this.#shared.counts, ended);
  }

  holdBack(): void {
    this.#heldBack = [];
    Atomics.store(this.#shared.counts, held, 1);
  }

  /** Lets a sync that waits go on later. @returns undefined if none waits */
  next(): (() => void) | undefined {
    const { counts } = this.#shared;
    if (Atomics.load(counts, waiting) > Atomics.load(counts, released)) return () => this.#release(1);
    return this.nextOfHandles();
  }

  /** The same for a sync of a file handle only. */
  nextOfHandles(): (() => void) | undefined {
    return this.#heldBack?.shift();
  }

  /** Lets all syncs go on. */
  letGo(): void {
    const { counts } = this.#shared;
    Atomics.store(counts, held, 0);
    this.#release(Atomics.load(counts, waiting) - Atomics.load(counts, released));
    for (const release of this.#heldBack ?? []) release();
    this.#heldBack = undefined;
  }

  remove(): void {
    this.letGo();
    this.#restore();
  }

  #release(count: number): void {
    Atomics.add(this.#shared.counts, released, count);
    Atomics.notify(this.#shared.counts, released);
  }
}
