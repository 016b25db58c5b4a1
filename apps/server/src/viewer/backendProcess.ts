import type { ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, rmSync } from 'node:fs';
import http from 'node:http';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { FastifyBaseLogger } from 'fastify';
import { killTree, memoryOf, startTree, treeOf } from '../checkpoints/itwinjs/processTree.ts';
import { iTwinJsVersion } from '../checkpoints/itwinjs/itwinjsVersion.ts';
import { findIsolation, type Isolation } from '../checkpoints/itwinjs/isolation.ts';
import type { Config } from '../config.ts';
import { within } from '../operations/within.ts';
import {
  BackendLostError,
  isResponsive,
  sendTo,
  type Backend,
  type BackendAnswer,
  type BackendRequest,
  type BackendUsage,
} from './backend.ts';
import type { BackendMessage, BackendSettings } from './protocol.ts';

/** A running process. */
interface Running {
  child: ChildProcess;
  url: URL;
  key: string;
  agent: http.Agent;
}

/** How long a process may take until it listens, milliseconds. It usually takes 1 s. */
const startMs = 60_000;
/** Interval of the watch on memory, milliseconds. */
const watchMs = 250;
/** A process that has ended is started again after this time at the earliest, milliseconds. It doubles with each failed start. */
const firstPauseMs = 100;
const longestPauseMs = 30_000;
const endMs = 2000;

const script = new URL(`./worker/worker${import.meta.url.slice(import.meta.url.lastIndexOf('.'))}`, import.meta.url);

export interface ProcessOptions {
  /** Folder of the process, for blocks and temporary files. It is emptied before each start. */
  folder: string;
  slot: number;
  viewer: Config['viewer'];
  isolation: Config['checkpoints']['isolation'];
  log: FastifyBaseLogger;
}

/**
 * One process that runs iTwin.js and answers viewers. It starts with the first call and ends when nobody has called for
 * a while. Beyond its limit of memory it is ended, and the next call starts it again.
 */
export class BackendProcess implements Backend {
  readonly iTwinJs = iTwinJsVersion() || undefined;
  readonly #options: ProcessOptions;
  #isolation: Promise<Isolation> | undefined;
  #running: Promise<Running> | undefined;
  #child: ChildProcess | undefined;
  #calls = 0;
  #failedStarts = 0;
  #earliestStart = 0;
  #idle: NodeJS.Timeout | undefined;
  readonly #stopping = new AbortController();
  /** Number of open checkpoints. */
  open = 0;
  /** How often the process was started. */
  starts = 0;

  constructor(options: ProcessOptions) {
    this.#options = options;
  }

  get pid(): number | undefined {
    return this.#child === undefined ? undefined : treeOf(this.#child).at(-1);
  }

  get usage(): BackendUsage {
    const running = this.#child !== undefined;
    const memoryBytes = this.#child === undefined ? 0 : memoryOf(this.#child);
    return { running, checkpoints: this.open, memoryBytes, starts: this.starts };
  }

  async call(request: BackendRequest, signal: AbortSignal): Promise<BackendAnswer> {
    clearTimeout(this.#idle);
    this.#calls++;
    try {
      const running = await this.#require(signal);
      try {
        return await sendTo(running, running.agent, request, signal);
      } catch (error) {
        // A client that has gone says nothing about the process.
        if (isTimeout(signal)) void this.#killUnlessResponsive(running);
        // Its end is noticed after its connections: the next attempt must not reach it again.
        else if (error instanceof BackendLostError && this.#child === running.child)
          await within(once(running.child, 'exit'), endMs);
        throw error;
      }
    } finally {
      this.#calls--;
      this.#endWhenIdle();
    }
  }

  /** Ends the process, whatever it is doing. The next call starts another one. */
  kill(reason: string): void {
    if (this.#child === undefined) return;
    this.#options.log.warn({ reason }, 'the view back end is ended');
    killTree(this.#child);
  }

  async stop(): Promise<void> {
    this.#stopping.abort(new Error('the server shuts down'));
    clearTimeout(this.#idle);
    const child = this.#child;
    if (child === undefined) return;
    killTree(child);
    if (child.exitCode === null && child.signalCode === null) await within(once(child, 'exit'), endMs);
  }

  /** A call took too long. Others may be waiting behind it for as long as its native code runs. */
  async #killUnlessResponsive(running: Running): Promise<void> {
    if (!(await isResponsive(running)) && this.#child === running.child) this.kill('it does not respond');
  }

  async #require(signal: AbortSignal): Promise<Running> {
    if (this.#stopping.signal.aborted) throw new BackendLostError(this.#stopping.signal.reason);
    this.#running ??= this.#start();
    const running = this.#running;
    return new Promise((resolve, reject) => {
      const onAbort = (): void => reject(signal.reason as Error);
      if (signal.aborted) return onAbort();
      signal.addEventListener('abort', onAbort, { once: true });
      running.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
    });
  }

  async #start(): Promise<Running> {
    try {
      const pauseMs = this.#earliestStart - performance.now();
      if (pauseMs > 0) await pause(pauseMs, undefined, { signal: this.#stopping.signal });
      const running = await this.#spawn();
      this.#failedStarts = 0;
      return running;
    } catch (error) {
      this.#running = undefined;
      this.#earliestStart =
        performance.now() + Math.min(longestPauseMs, firstPauseMs * 2 ** Math.min(this.#failedStarts++, 16));
      throw new BackendLostError(error);
    }
  }

  async #spawn(): Promise<Running> {
    const { folder, slot, viewer, isolation: wanted, log } = this.#options;
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    this.#isolation ??= findIsolation(folder, wanted, { slot, network: true });
    const isolation = await this.#isolation.catch((error: unknown) => {
      this.#isolation = undefined;
      throw error;
    });
    await isolation.grantAccess(folder);
    // A process that started after `stop` would be ended by nobody.
    this.#stopping.signal.throwIfAborted();
    const { file, args, options } = isolation.command(fileURLToPath(script), [folder], true);
    const child = startTree(file, args, options);
    this.#child = child;
    this.starts++;
    let output = '';
    child.stderr?.on('data', (text: Buffer) => void (output = `${output}${text.toString()}`.slice(-2000)));
    const agent = new http.Agent({ keepAlive: true, maxSockets: Infinity });
    child.once('exit', (code, killedBy) => {
      if (this.#child !== child) return;
      this.#child = undefined;
      this.#running = undefined;
      this.open = 0;
      agent.destroy();
      if (!this.#stopping.signal.aborted && killedBy !== 'SIGTERM')
        log.warn({ code, killedBy, output }, 'the view back end ended; the next request of a viewer starts it again');
    });
    const settings: BackendSettings = {
      key: randomBytes(24).toString('base64url'),
      idleMs: viewer.idleSeconds * 1000,
      maxCheckpoints: viewer.maxCheckpoints,
      cacheMiB: viewer.cacheMiB,
      host: '127.0.0.1',
      port: 0,
    };
    const port = await this.#listening(child, settings);
    this.#watch(child, viewer.memoryMiB * 2 ** 20);
    return { child, url: new URL(`http://127.0.0.1:${port}`), key: settings.key, agent };
  }

  /** Sends the settings and waits until the process listens. */
  #listening(child: ChildProcess, settings: BackendSettings): Promise<number> {
    return new Promise<number>((resolve, reject) => {
      const timer = setTimeout(() => {
        killTree(child);
        reject(new Error('the view back end did not start in time'));
      }, startMs);
      const fail = (error: Error): void => {
        clearTimeout(timer);
        if (child.pid === undefined) this.#child = undefined;
        reject(error);
      };
      child.on('error', fail);
      child.once('exit', (code, killedBy) => fail(new Error(`the view back end ended (${killedBy ?? code})`)));
      child.on('message', (message: BackendMessage) => {
        if ('open' in message) this.open = message.open;
        else {
          clearTimeout(timer);
          resolve(message.port);
        }
      });
      child.send(settings, (error) => error !== null && fail(error));
    });
  }

  #watch(child: ChildProcess, mostBytes: number): void {
    const watch = setInterval(() => {
      if (memoryOf(child) > mostBytes) this.kill('it takes more memory than viewer.memoryMiB');
    }, watchMs);
    watch.unref();
    child.once('exit', () => clearInterval(watch));
  }

  #endWhenIdle(): void {
    clearTimeout(this.#idle);
    if (this.#calls > 0 || this.#stopping.signal.aborted) return;
    this.#idle = setTimeout(() => this.#child?.kill('SIGTERM'), this.#options.viewer.idleSeconds * 2000);
    this.#idle.unref();
  }
}

function isTimeout({ aborted, reason }: AbortSignal): boolean {
  return aborted && reason instanceof DOMException && reason.name === 'TimeoutError';
}
