import { fork, type ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { EmbeddedIssuer } from '../../../apps/server/src/access/embeddedIssuer.ts';
import { startServer } from '../../../apps/server/src/app.ts';
import { Installation, people, type PersonName, type Setup } from '../server.ts';

/** A long turn of the server's event loop. */
export interface Block {
  /** Milliseconds since the epoch. */
  from: number;
  to: number;
  /** Processor time of the event loop's thread meanwhile, milliseconds. Unlike elapsed time, it does not grow with the load of the machine. */
  cpuMs: number;
}

interface Started {
  origin: string;
  tokens: Record<PersonName, string>;
}
type Question = 'blocks' | 'heap' | 'end';

/** Interval at which the event loop is checked, and the duration from which a turn is reported, milliseconds. */
const lookEveryMs = 10;
export const blockMs = 250;

/** Timeout for that process, milliseconds: to start, to end, or for a turn of its event loop. */
const timeoutMs = 60_000;

/** A server in a separate process, so that only its own work is measured there. */
export class MeasuredServer {
  readonly #child: ChildProcess;
  readonly #log: string[] = [];
  origin = '';
  tokens = {} as Started['tokens'];

  private constructor(setup: Setup) {
    const env = { ...process.env };
    // Requests here do not come from a published client: they are not counted in the table of compatibility.
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

  /** @throws Error if the process exits before the server listens */
  static async start(setup: Setup): Promise<MeasuredServer> {
    const server = new MeasuredServer(setup);
    Object.assign(server, await server.#next<Started>());
    return server;
  }

  /** The end of what the server has logged since the last call. */
  takeLog(): string {
    return this.#log.splice(0).join('').slice(-3000);
  }

  /** Long turns of the event loop since the last call. */
  blocks(): Promise<Block[]> {
    return this.#ask('blocks');
  }

  /** Heap in use after a garbage collection, bytes. */
  heap(): Promise<number> {
    return this.#ask('heap');
  }

  /** Stops the server and removes its installation. */
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
      // The message may be read in the long turn itself, before the timer.
      look();
      const found = blocks;
      blocks = [];
      return found;
    },
    heap: () => {
      globalThis.gc?.();
      // The garbage collection is not caused by a request.
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
  // Exits with its parent.
  process.once('disconnect', () => process.exit());
  process.send?.({ origin: running.origin, tokens } satisfies Started);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main(JSON.parse(process.argv[2] ?? '') as Setup);
