import { inspect } from 'node:util';
import { writeSync } from 'node:fs';
import { exitCodes } from './exit.ts';

/** How long after its time a process is gone at the latest, whatever hangs, milliseconds. */
const lastEndMs = 5000;

/** A server whose process ends when it is told to. */
export interface Ending {
  close: () => Promise<void>;
  /** Ends the processes that it has started, at once. */
  kill: () => void;
  /** How long an orderly end may take, milliseconds. */
  graceMs: number;
}

/** Closes a server at SIGINT, at SIGTERM, and when whoever started the process is gone. */
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
}

/**
 * Ends the process by force when it is still there after its time: then a disk, a database or a store hangs, and so would
 * every orderly end. Nothing is lost that was answered; jobs go on elsewhere or after the next start.
 */
export function endInTime({ kill, graceMs }: Ending): void {
  const end = setTimeout(() => {
    writeSync(process.stderr.fd, 'The server did not end in time and is ended by force.\n');
    kill();
    // Not `process.exit`: it waits for threads, and one of them may be what hangs.
    process.kill(process.pid, 'SIGKILL');
  }, graceMs + lastEndMs);
  // What is left open does not keep the process, but must not keep it for ever either.
  end.unref();
}
