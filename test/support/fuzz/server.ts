import { fork, type ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { EmbeddedIssuer } from '../../../apps/server/src/access/embeddedIssuer.ts';
import { startServer } from '../../../apps/server/src/app.ts';
import { Installation, people, type PersonName, type Setup } from '../server.ts';

/** A turn of the server's event loop that took long. */
export interface Block {
  /** Milliseconds since the epoch. */
  from: number;
  to: number;
  /** What the thread of the loop computed meanwhile, milliseconds. Unlike the time on the clock, it does not grow when other processes keep the machine busy. */
  cpuMs: number;
}

interface Started {
  origin: string;
  tokens: Record<PersonName, string>;
}
type Question = 'blocks' | 'heap' | 'end';

/** How often the loop is looked at, and the length of a turn from which on it is reported, milliseconds. */
const lookEveryMs = 10;
export const blockMs = 250;

/** Longest wait for that process, milliseconds: it starts, or ends, or its loop turns. */
const timeoutMs = 60_000;

/** A server in a process of its own, so that nothing but its own work is measured there. */
export class MeasuredServer {
  readonly #child: ChildProcess;
  readonly #log: string[] = [];
  origin = '';
  tokens = {} as Started['tokens'];

  private constructor(setup: Setup) {
    const env = { ...process.env };
    // What is answered here was not asked for by a client: it does not count in the table of compatibility.
    delete env['OFFSHOOT_TEST_COVERAGE'];
    this.#child = fork(fileURLToPath(import.meta.url), [JSON.stringify(setup)], {
      stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
      execArgv: ['--expose-gc'],
      env,
    });
    this.#child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.#log.push(text);
      if (this.#log.length > 20) this.#log.shift();
    });
  }

  /** @throws Error when the process ends before the server listens */
  static async start(setup: Setup): Promise<MeasuredServer> {
    const server = new MeasuredServer(setup);
    Object.assign(server, await server.#next<Started>());
    return server;
  }

  /** What the server has logged since this was asked last, the end of it. */
  takeLog(): string {
    return this.#log.splice(0).join('').slice(-3000);
  }

  /** Long turns of the loop since this was asked last. */
  blocks(): Promise<Block[]> {
    return this.#ask('blocks');
  }

  /** What is reachable from JavaScript, after a collection of garbage, bytes. */
  heap(): Promise<number> {
    return this.#ask('heap');
  }

  /** Ends the server and its installation. */
  async end(): Promise<void> {
    const { exitCode, signalCode } = this.#child;
    if (exitCode !== null || signalCode !== null) return;
    const ended = new Promise((resolve) => this.#child.once('exit', resolve));
    const late = setTimeout(() => this.#child.kill('SIGKILL'), timeoutMs);
    this.#child.send('end' satisfies Question);
    await ended;
    clearTimeout(late);
  }

  #ask<T>(question: Question): Promise<T> {
    this.#child.send(question);
    return this.#next();
  }

  #next<T>(): Promise<T> {
    return new Promise((resolve, reject) => {
      const fail = (what: string): void => reject(new Error(`${what}\n${this.takeLog()}`));
      const late = setTimeout(() => fail(`the process of the server says nothing for ${timeoutMs} ms`), timeoutMs);
      const ended = (): void => fail('the server has ended');
      this.#child.once('exit', ended);
      this.#child.once('message', (answer) => {
        clearTimeout(late);
        this.#child.off('exit', ended);
        resolve(answer as T);
      });
    });
  }
}

async function main(setup: Setup): Promise<void> {
  const installation = await Installation.create(setup);
  const running = await startServer(installation.config({ logLevel: 'error' }));
  const issuer = await EmbeddedIssuer.open(installation.dataDir);
  const tokens = {} as Started['tokens'];
  for (const name of Object.keys(people) as PersonName[])
    tokens[name] = await issuer.mint(people[name], {
      applicationId: 'suite',
      scope: 'itwin-platform',
      lifeSeconds: 86_400,
    });

  let blocks: Block[] = [];
  const now = (): { at: number; cpu: number } => {
    const { user, system } = process.threadCpuUsage();
    return { at: Date.now(), cpu: (user + system) / 1000 };
  };
  let last = now();
  const look = (): void => {
    const { at, cpu } = now();
    if (at - last.at > blockMs) blocks.push({ from: last.at, to: at, cpuMs: cpu - last.cpu });
    last = { at, cpu };
  };
  const looking = setInterval(look, lookEveryMs);

  const answers: Record<Question, () => unknown> = {
    blocks: () => {
      // The question may be read in the turn that was long, before the timer.
      look();
      const found = blocks;
      blocks = [];
      return found;
    },
    heap: () => {
      globalThis.gc?.();
      // The collection is no request's doing.
      last = now();
      const { heapUsed, external } = process.memoryUsage();
      return heapUsed + external;
    },
    end: async () => {
      clearInterval(looking);
      await running.close();
      installation.remove();
      process.disconnect();
    },
  };
  process.on(
    'message',
    (question: Question) =>
      void Promise.resolve(answers[question]()).then((answer) => question === 'end' || process.send?.(answer)),
  );
  // Without its parent it ends as well.
  process.once('disconnect', () => process.exit());
  process.send?.({ origin: running.origin, tokens } satisfies Started);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main(JSON.parse(process.argv[2] ?? '') as Setup);
