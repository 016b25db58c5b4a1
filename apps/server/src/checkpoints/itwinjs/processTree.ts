import { spawn, type ChildProcess, type SpawnOptions } from 'node:child_process';
import { readFileSync } from 'node:fs';

const pageBytes = 4096;

/** Windows has no process groups. */
const hasGroups = process.platform !== 'win32';

/** Starts a process that talks to this one over a channel, and that `killTree` ends with all that it has started. */
export function startTree(file: string, args: readonly string[], options: SpawnOptions): ChildProcess {
  const child = spawn(file, args, {
    ...options,
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    serialization: 'json',
    detached: hasGroups,
  });
  // Whoever killed it, for example the system when memory is short.
  child.once('exit', () => hasGroups && killTree(child));
  return child;
}

/**
 * Kills a process with its group. bubblewrap ends the process that it isolates, but not if it is itself killed in its first
 * milliseconds: that process then waits for it forever, and keeps the channel open.
 */
export function killTree({ pid }: ChildProcess): void {
  if (pid === undefined) return;
  try {
    process.kill(hasGroups ? -pid : pid, 'SIGKILL');
  } catch {
    // All of it has ended.
  }
}

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
