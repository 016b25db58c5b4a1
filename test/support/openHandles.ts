import { after } from 'node:test';
import { isMainThread } from 'node:worker_threads';
import { childrenOf, killIfRunning } from './processes.ts';

/** How long the process of a test file may run after its last test, milliseconds. */
const graceMs = 30_000;

/**
 * Loaded before every test file. An open handle after the last test, such as a server that a failed test did not close, would
 * keep the process alive and delay the whole run: the process is ended and fails, and prints its open handles.
 */
if (isMainThread)
  after(() => {
    const late = setTimeout(() => {
      console.error(`still open ${graceMs} ms after the last test: ${process.getActiveResourcesInfo().join(', ')}`);
      process.exit(1);
    }, graceMs);
    late.unref();
  });

// A surviving child would keep the runner's output open. Worker threads load this file too, and end with their process.
if (isMainThread) process.once('exit', () => childrenOf(process.pid).forEach(killIfRunning));
