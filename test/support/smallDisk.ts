import { spawnSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

/** A small temporary file system, which can be filled to the last byte. */
export interface SmallDisk {
  folder: string;
  /** Fills all free space. */
  fill(): void;
  /** Frees the space that `fill` took. */
  empty(): void;
  remove(): void;
}

/** Mounts a file system in memory. @returns the reason if that is not possible: not root, or a container that forbids it */
export function smallDisk(mebibytes: number): SmallDisk | string {
  if (process.getuid?.() !== 0) return 'only root can mount a small file system';
  const folder = mkdtempSync(path.join(tmpdir(), 'offshoot-disk-'));
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${mebibytes}m`, 'tmpfs', folder]);
  if (mounted.status !== 0) {
    rmSync(folder, { recursive: true, force: true });
    return 'a small file system cannot be mounted here';
  }
  const filler = path.join(folder, 'filler');
  return {
    folder,
    fill() {
      const file = openSync(filler, 'a');
      try {
        for (const size of [1 << 20, 1 << 12]) fillBy(file, Buffer.alloc(size, 1));
      } finally {
        closeSync(file);
      }
    },
    empty: () => rmSync(filler, { force: true }),
    remove() {
      spawnSync('umount', ['-l', folder]);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

function fillBy(file: number, bytes: Buffer): void {
  try {
    while (writeSync(file, bytes) === bytes.length);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
  }
}
