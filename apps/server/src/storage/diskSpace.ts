import { randomBytes } from 'node:crypto';
import { rm, stat, statfs, writeFile } from 'node:fs/promises';
import type { Config } from '../config.ts';

/** Less space is free than the configured floor. The code marks it as a full disk. */
class LowDiskSpaceError extends Error {
  readonly code = 'ENOSPC';
  constructor(freeBytes: number, floorBytes: number) {
    const inMiB = (bytes: number): number => Math.floor(bytes / mebibyte);
    super(`${inMiB(freeBytes)} MiB are free, but ${inMiB(floorBytes)} MiB must stay free (diskSpace)`);
    this.name = 'LowDiskSpaceError';
  }
}

const mebibyte = 2 ** 20;
/** How long a measurement is reused, ms. */
const measurementLifeMs = 1000;
/** Bytes after which a running write measures again. The amount is far below the floor. */
export const recheckEveryBytes = 8 * mebibyte;
/**
 * Size of the reserve file: enough for a thousand deletions in the write-ahead log. At most 1/16 of the file system is
 * used.
 */
const reserveBytes = 8 * mebibyte;

interface Measurement {
  at: number;
  free: number;
  total: number;
}

/**
 * Keeps a file system from filling up. Below a floor of free space nothing new is stored, so that reads and deletions
 * still work. Next to the embedded database there is also a reserve file, in case other programs fill the disk. It is
 * deleted when a deletion needs space in the write-ahead log.
 */
export class DiskSpace {
  readonly #folder: string;
  readonly #settings: Config['diskSpace'];
  readonly #reserve: string | undefined;
  #latest: Measurement | undefined;
  #measuring: Promise<Measurement> | undefined;
  #missingReserve = 0;

  /** @param reserve path of the reserve file; none by default */
  constructor(folder: string, settings: Config['diskSpace'], reserve?: string) {
    this.#folder = folder;
    this.#settings = settings;
    this.#reserve = reserve;
  }

  /**
   * Checks that the floor stays free after writing `bytes` more bytes.
   * @param now measures the disk instead of reusing a measurement of the last second
   * @throws LowDiskSpaceError
   */
  async require(bytes = 0, now = false): Promise<void> {
    const { free, total } = now ? await this.#measure() : await this.#current();
    const floor = this.#floorOf(total);
    if (floor > 0 && free - this.#missingReserve - bytes < floor) throw new LowDiskSpaceError(free, floor);
  }

  /** Deletes the reserve file if the disk is full, so that operations that free space can run. */
  async makeRoom(): Promise<void> {
    if (this.#reserve === undefined) return;
    const { free } = await this.#measure();
    const reserve = await sizeOf(this.#reserve);
    if (reserve === 0 || free >= reserve) return;
    await rm(this.#reserve, { force: true });
    this.#missingReserve = reserve;
    this.#latest = undefined;
  }

  /** Creates the reserve file if enough space is free. Does nothing otherwise. */
  async keepReserve(): Promise<void> {
    if (this.#reserve === undefined) return;
    const { free, total } = await this.#measure();
    const wanted = Math.min(reserveBytes, Math.floor(total / 16));
    if ((await sizeOf(this.#reserve)) === wanted) return;
    this.#missingReserve = wanted;
    if (free < this.#floorOf(total) + 2 * wanted) return;
    try {
      // Random bytes, which no file system can compress or store sparsely.
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
