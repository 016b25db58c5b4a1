import { existsSync, readFileSync } from 'node:fs';

/** Children of a process, read from Linux's /proc. */
export function childrenOf(pid: number): number[] {
  const listed = `/proc/${pid}/task/${pid}/children`;
  return existsSync(listed) ? readFileSync(listed, 'utf8').split(' ').filter(Boolean).map(Number) : [];
}

/** Kills a process that may have exited already. */
export function killIfRunning(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
