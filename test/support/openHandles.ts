import { after } from 'node:test';
import { isMainThread } from 'node:worker_threads';
import { childrenOf, killIfRunning } from './processes.ts';

/** How long a test file's process may stay after its last test, milliseconds. */
const graceMs = 30_000;

/**
 * Loaded before every test file. A process that something keeps alive after its last test, such as a server that a failed test
 * did not end, would hold up the whole run: it is ended, and fails, with the kinds of what it left open.
 */
if (isMainThread)
  after(() => {
    const late = setTimeout(() => {
      console.error(`still open ${graceMs} ms after the last test: ${process.getActiveResourcesInfo().join(', ')}`);
      process.exit(1);
    }, graceMs);
    late.unref();
  });

// A child that lives on would hold the runner's output open, and the run with it. Threads load this too, and end before their process.
if (isMainThread) process.once('exit', () => childrenOf(process.pid).forEach(killIfRunning));
