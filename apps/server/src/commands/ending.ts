import { inspect } from 'node:util';
import { writeSync } from 'node:fs';
import { exitCodes } from './exit.ts';

/** Time after the grace period at which the process is killed, whatever hangs, milliseconds. */
const lastEndMs = 5000;

/** A server whose process shuts down on a signal. */
export interface Ending {
  close: () => Promise<void>;
  /** Kills its child processes immediately. */
  kill: () => void;
  /** Longest time for an orderly shutdown, milliseconds. */
  graceMs: number;
}

/** Closes a server on SIGINT, on SIGTERM, and when the parent process disconnects. */
export function closeOnSignal(server: Ending): void {
  let closing = false;
  const stop = (): void => {
    if (closing) return;
    closing = true;
    endInTime(server);
    server
      .close()
      .catch((error: unknown) => {
        process.exitCode = exitCodes.failed;
        process.stderr.write(`${inspect(error)}\n`);
      })
      .finally(() => process.disconnect?.());
  };
  process.once('SIGINT', stop);
  process.once('SIGTERM', stop);
  process.once('disconnect', stop);
  // The parent process ended while the server started.
  if (process.send !== undefined && !process.connected) stop();
}

/**
 * Kills the process if the orderly shutdown exceeds its time, because then a disk, a database or a store hangs. No
 * acknowledged change is lost, and jobs resume on another server or after the next start.
 */
export function endInTime({ kill, graceMs }: Ending): void {
  const end = setTimeout(() => {
    writeSync(process.stderr.fd, 'The server did not end in time and is ended by force.\n');
    kill();
    // Not `process.exit`: it waits for threads, and one of them may be what hangs.
    process.kill(process.pid, 'SIGKILL');
  }, graceMs + lastEndMs);
  // The timer itself must not keep the process alive.
  end.unref();
}
