import type { ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';

const pageBytes = 4096;

/** Ids of a process and its descendants, in this order. bubblewrap is the parent of the process that it isolates. */
export function treeOf(child: ChildProcess): number[] {
  const pids = child.pid === undefined ? [] : [child.pid];
  for (const pid of pids) {
    try {
      pids.push(...readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number));
    } catch {
      // It has ended meanwhile, or this is not Linux.
    }
  }
  return pids;
}

/** Resident memory of a process and its descendants, bytes; 0 on systems other than Linux. */
export function memoryOf(child: ChildProcess): number {
  let pages = 0;
  for (const pid of treeOf(child)) {
    try {
      pages += Number(readFileSync(`/proc/${pid}/statm`, 'utf8').split(' ')[1]);
    } catch {
      // It has ended meanwhile, or this is not Linux.
    }
  }
  return pages * pageBytes;
}
