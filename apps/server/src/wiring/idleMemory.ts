import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { freePageCaches } from '../db/sqlite/connection.ts';
import { freeReadBuffers } from '../storage/openFile.ts';

/** Interval of the looks at how busy the process is, milliseconds. */
const lookEveryMs = 5000;
/** The process is idle if its CPU time is less than this share of the time between two looks. */
const idleShare = 0.02;
/** Number of idle looks before memory is freed: a pause of clients that will continue is not the end of a load. */
const idleLooks = 2;
/** CPU time after which memory is worth a collection, which takes 50 ms of it. The start of a server takes more. */
const workMs = 400;

interface Parts {
  /** CPU time that the process has used, milliseconds: unlike the time of its event loop, it does not grow while other processes run. */
  busyMs: () => number;
  free: () => void;
}

/**
 * Frees memory when a load is over. V8 collects when enough has been allocated, so the garbage of the last requests stays as long as
 * none follow: 90 MiB after clones with 50 connections. Nothing is freed while requests come in.
 */
export class IdleMemory {
  readonly #parts: Parts;
  #busyMs: number;
  #workedMs: number;
  #idleLooks = 0;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.#busyMs = parts.busyMs();
    this.#workedMs = this.#busyMs;
  }

  /** Called once in each interval. */
  look(): void {
    const busyMs = this.#parts.busyMs();
    const sinceMs = busyMs - this.#busyMs;
    this.#busyMs = busyMs;
    this.#workedMs += sinceMs;
    this.#idleLooks = sinceMs < idleShare * lookEveryMs ? this.#idleLooks + 1 : 0;
    if (this.#idleLooks < idleLooks || this.#workedMs < workMs) return;
    this.#parts.free();
    // The collection itself is no load.
    this.#busyMs = this.#parts.busyMs();
    this.#workedMs = 0;
  }
}

/** Frees memory of this process after each load, until it ends. Only for a process that is a server and nothing else. */
export function freeMemoryWhenIdle(log: { debug: (details: object, message: string) => void }): void {
  const collect = collector();
  const memory = new IdleMemory({
    busyMs: () => {
      const { user, system } = process.cpuUsage();
      return (user + system) / 1000;
    },
    free: () => {
      const before = process.memoryUsage();
      freePageCaches();
      freeReadBuffers();
      collect?.();
      const after = process.memoryUsage();
      log.debug({ before, after }, 'freed memory after a load');
    },
  });
  setInterval(() => memory.look(), lookEveryMs).unref();
}

/** Makes V8 collect garbage now; undefined if this V8 offers no such function. */
function collector(): (() => void) | undefined {
  setFlagsFromString('--expose-gc');
  const found = runInNewContext('typeof gc === "function" ? gc : undefined') as (() => void) | undefined;
  // Later contexts need not have it.
  setFlagsFromString('--no-expose-gc');
  return found;
}
