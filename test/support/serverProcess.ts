import { fork, type ChildProcess } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Config } from '../../apps/server/src/config.ts';

const cli = fileURLToPath(new URL('../../apps/server/src/cli.ts', import.meta.url));

/** How long a server may take to start, or to end after a signal, before the test fails, milliseconds: a loaded machine needs seconds. */
const timeoutMs = 120_000;

/** A server or worker in a separate process, which a test may kill and start again. */
export class ServerProcess {
  readonly #config: Config;
  readonly #role: 'start' | 'work';
  #child: ChildProcess | undefined;
  origin = '';

  constructor(config: Config, role: 'start' | 'work' = 'start') {
    this.#config = config;
    this.#role = role;
  }

  /** Of the process that was started last. */
  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** @throws Error if it exits before it listens, or does not listen in time */
  async start(): Promise<void> {
    const file = path.join(this.#config.dataDir, `${randomUUID()}.json`);
    writeFileSync(file, JSON.stringify(this.#config));
    const child = fork(cli, [this.#role, '--config', file], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
    this.#child = child;
    const late = setTimeout(() => child.kill('SIGKILL'), timeoutMs);
    try {
      this.origin = await new Promise<string>((resolve, reject) => {
        child.once('message', (message) => resolve((message as { origin: string }).origin));
        child.once('exit', () =>
          reject(
            new Error(`the server ended while it started, or was killed because it took more than ${timeoutMs} ms`),
          ),
        );
      });
    } finally {
      clearTimeout(late);
    }
  }

  /**
   * Ends it; by default with SIGKILL, as a power failure would.
   * @throws Error if it did not exit by itself in time
   */
  async end(signal: 'SIGKILL' | 'SIGTERM' = 'SIGKILL'): Promise<void> {
    const child = this.#child;
    if (child?.exitCode !== null || child.signalCode !== null) return;
    let late = false;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    const timer = setTimeout(() => {
      late = true;
      child.kill('SIGKILL');
    }, timeoutMs);
    child.kill(signal);
    await ended;
    clearTimeout(timer);
    if (late) throw new Error(`the server did not end within ${timeoutMs} ms of ${signal}`);
  }
}
