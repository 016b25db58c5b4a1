import { fork, type ChildProcess } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Config } from '../../apps/server/src/config.ts';

const cli = fileURLToPath(new URL('../../apps/server/src/cli.ts', import.meta.url));

/** A server or worker in a process of its own, which a test may kill and start again. */
export class ServerProcess {
  readonly #config: Config;
  readonly #role: 'start' | 'work';
  #child: ChildProcess | undefined;
  origin = '';

  constructor(config: Config, role: 'start' | 'work' = 'start') {
    this.#config = config;
    this.#role = role;
  }

  /** @throws Error when it ends before it listens */
  async start(): Promise<void> {
    const file = path.join(this.#config.dataDir, `${randomUUID()}.json`);
    writeFileSync(file, JSON.stringify(this.#config));
    const child = fork(cli, [this.#role, '--config', file], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
    this.#child = child;
    this.origin = await new Promise<string>((resolve, reject) => {
      child.once('message', (message) => resolve((message as { origin: string }).origin));
      child.once('exit', () => reject(new Error('the server ended while it started')));
    });
  }

  /** Ends it; by default as a loss of power would. */
  async end(signal: 'SIGKILL' | 'SIGTERM' = 'SIGKILL'): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill(signal);
    await ended;
  }
}
