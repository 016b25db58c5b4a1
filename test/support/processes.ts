import { existsSync, readFileSync } from 'node:fs';

/** Processes that a process has started, as Linux tells them. */
export function childrenOf(pid: number): number[] {
  const listed = `/proc/${pid}/task/${pid}/children`;
  return existsSync(listed) ? readFileSync(listed, 'utf8').split(' ').filter(Boolean).map(Number) : [];
}

/** Ends a process that may have ended by itself. */
export function killIfRunning(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
