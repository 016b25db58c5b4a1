import { randomBytes } from 'node:crypto';
import { rm, stat, statfs, writeFile } from 'node:fs/promises';
import type { Config } from '../config.ts';

/** A file system has less free space than the configuration wants to be left. Recognized as a full disk by its code. */
class LowDiskSpaceError extends Error {
  readonly code = 'ENOSPC';
  constructor(freeBytes: number, floorBytes: number) {
    const inMiB = (bytes: number): number => Math.floor(bytes / mebibyte);
    super(`${inMiB(freeBytes)} MiB are free, and ${inMiB(floorBytes)} MiB are to be left (diskSpace)`);
    this.name = 'LowDiskSpaceError';
  }
}

const mebibyte = 2 ** 20;
/** How long a look at the file system is good, ms. */
const measurementLifeMs = 1000;
/** Bytes after which a running write looks again: what comes in between two looks is far below the floor. */
export const recheckEveryBytes = 8 * mebibyte;
/**
 * Size of the reserve: a thousand deletions in the write-ahead log, and no more than a sixteenth of the file system.
 */
const reserveBytes = 8 * mebibyte;

interface Measurement {
  at: number;
  free: number;
  total: number;
}

/**
 * Keeps a file system from being filled to the last byte. Below a floor of free space nothing new is stored, so that
 * reading and deleting go on. Where the embedded database is, a file of reserve is kept besides, for the case that
 * something else fills the disk: it is given up when something is to be deleted, which needs room too.
 */
export class DiskSpace {
  readonly #folder: string;
  readonly #settings: Config['diskSpace'];
  readonly #reserve: string | undefined;
  #latest: Measurement | undefined;
  #measuring: Promise<Measurement> | undefined;
  #missingReserve = 0;

  /** @param reserve file of reserve; none by default */
  constructor(folder: string, settings: Config['diskSpace'], reserve?: string) {
    this.#folder = folder;
    this.#settings = settings;
    this.#reserve = reserve;
  }

  /**
   * Makes sure that so many bytes more leave the floor free.
   * @param now looks at the disk itself, not at what was seen within the last second
   * @throws LowDiskSpaceError
   */
  async require(bytes = 0, now = false): Promise<void> {
    const { free, total } = now ? await this.#measure() : await this.#current();
    const floor = this.#floorOf(total);
    if (floor > 0 && free - this.#missingReserve - bytes < floor) throw new LowDiskSpaceError(free, floor);
  }

  /** Gives the reserve up if the disk is full, so that what frees space can run. */
  async makeRoom(): Promise<void> {
    if (this.#reserve === undefined) return;
    const { free } = await this.#measure();
    const reserve = await sizeOf(this.#reserve);
    if (reserve === 0 || free >= reserve) return;
    await rm(this.#reserve, { force: true });
    this.#missingReserve = reserve;
    this.#latest = undefined;
  }

  /** Lays the reserve in, or in again, as long as there is plenty of room. That there is none is no fault. */
  async keepReserve(): Promise<void> {
    if (this.#reserve === undefined) return;
    const { free, total } = await this.#measure();
    const wanted = Math.min(reserveBytes, Math.floor(total / 16));
    if ((await sizeOf(this.#reserve)) === wanted) return;
    this.#missingReserve = wanted;
    if (free < this.#floorOf(total) + 2 * wanted) return;
    try {
      // Bytes that no file system can leave out or compress.
      await writeFile(this.#reserve, randomBytes(wanted), { mode: 0o600 });
      this.#missingReserve = 0;
    } catch {
      await rm(this.#reserve, { force: true });
    }
    this.#latest = undefined;
  }

  #floorOf(total: number): number {
    const { floorMiB, floorPercent } = this.#settings;
    return Math.min(floorMiB * mebibyte, (total * floorPercent) / 100);
  }

  async #current(): Promise<Measurement> {
    if (this.#latest !== undefined && performance.now() - this.#latest.at < measurementLifeMs) return this.#latest;
    return this.#measure();
  }

  async #measure(): Promise<Measurement> {
    this.#measuring ??= statfs(this.#folder)
      .then(
        ({ bavail, blocks, bsize }) =>
          (this.#latest = { at: performance.now(), free: bavail * bsize, total: blocks * bsize }),
      )
      .finally(() => (this.#measuring = undefined));
    return this.#measuring;
  }
}

async function sizeOf(file: string): Promise<number> {
  return stat(file).then(
    ({ size }) => size,
    () => 0,
  );
}
