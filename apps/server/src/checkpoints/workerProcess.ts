import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { FinalError, PublicError } from '../operations/reasons.ts';
import { within } from '../operations/within.ts';
import type { CallOptions } from '../storage/blobStore.ts';
import type { FaultKind, WorkerMessage, WorkRequest, WorkResult } from './worker.ts';

export interface WorkerLimits {
  /** Memory of the process, bytes; above it the process is ended and its work fails. */
  memoryBytes: number;
  /** Longest time between two signs of life, milliseconds. */
  silenceMs: number;
}

/** A file cannot be worked on. The message is for users; the cause has what the process said. */
export class FileFaultError extends FinalError {
  readonly kind: FaultKind;
  /** The highest briefcase that made anything in a baseline that is kept all the same; 0 otherwise. */
  readonly highestBriefcaseId: number;
  constructor(message: string, kind: FaultKind, detail: string, highestBriefcaseId: number) {
    super(message, { cause: new Error(detail) });
    this.name = 'FileFaultError';
    this.kind = kind;
    this.highestBriefcaseId = highestBriefcaseId;
  }
}

/** An idle process is ended after this long; starting one takes about 0.5 s. */
const idleMs = 60_000;
/** Short: memory can grow by hundreds of MiB a second. */
const watchEveryMs = 100;

/**
 * Whether iTwin.js is installed here with its native part for this machine, so that model files can be made. The native part
 * comes by a script of its package, which an installation without scripts leaves out.
 */
export function isITwinJsInstalled(): boolean {
  try {
    const backend = createRequire(fileURLToPath(import.meta.resolve('@itwin/core-backend')));
    const native = path.dirname(backend.resolve('@bentley/imodeljs-native'));
    return existsSync(path.join(native, `imodeljs-${process.platform}-${process.arch}`));
  } catch {
    return false;
  }
}

/** The iTwin.js process seen from the server: started when there is work, one piece of work at a time. */
export class WorkerProcess {
  readonly #cacheDir: string;
  readonly #limits: WorkerLimits;
  #child: ChildProcess | undefined;
  #idle: NodeJS.Timeout | undefined;
  #tail: Promise<unknown> = Promise.resolve();

  constructor(cacheDir: string, limits: WorkerLimits) {
    this.#cacheDir = cacheDir;
    this.#limits = limits;
  }

  /** The process that works at the moment, for tests that end it. */
  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /**
   * Makes a file what the request says.
   * @param options.onProgress hears that the process is watched, which its own limits bound: the caller need not time it
   * @throws FileFaultError when the files are at fault; Error when the process ended, grew too large or fell silent
   */
  async work(request: WorkRequest, options: CallOptions & { signal: AbortSignal }, onApplied: (index: number) => void): Promise<WorkResult> {
    const turn = this.#tail.then(() => this.#work(request, options, onApplied));
    this.#tail = turn.catch(() => undefined);
    return turn;
  }

  async #work(request: WorkRequest, { signal, onProgress }: CallOptions & { signal: AbortSignal }, onApplied: (index: number) => void): Promise<WorkResult> {
    signal.throwIfAborted();
    clearTimeout(this.#idle);
    const child = (this.#child ??= this.#start());
    let complaint = '';
    const listen = (text: Buffer): void => void (complaint = `${complaint}${text.toString()}`.slice(-2000));
    child.stderr?.on('data', listen);
    try {
      return await new Promise<WorkResult>((resolve, reject) => {
        let reason: Error | undefined;
        let heardAt = Date.now();
        const end = (why: Error): void => {
          reason ??= why;
          child.kill('SIGKILL');
        };
        const watch = setInterval(() => {
          onProgress?.();
          if (Date.now() - heardAt > this.#limits.silenceMs) end(new PublicError(`The process that makes checkpoints was silent for ${this.#limits.silenceMs / 1000} s and was ended.`));
          const memory = memoryOf(child);
          if (memory > this.#limits.memoryBytes) end(new PublicError(`The process that makes checkpoints took ${Math.round(memory / 2 ** 20)} MiB, more than it may, and was ended.`));
        }, watchEveryMs);
        const onAbort = (): void => end(signal.reason as Error);
        const settle = (): void => {
          clearInterval(watch);
          signal.removeEventListener('abort', onAbort);
          child.off('message', onMessage);
          child.off('exit', onExit);
        };
        const onMessage = (message: WorkerMessage): void => {
          heardAt = Date.now();
          if ('applied' in message) return onApplied(message.applied);
          settle();
          if ('result' in message) resolve(message.result);
          else reject(new FileFaultError(message.fault, message.kind, message.detail, message.highestBriefcaseId));
        };
        const onExit = (code: number | null, killedBy: string | null): void => {
          settle();
          this.#child = undefined;
          reject(reason ?? new PublicError(`The process that makes checkpoints ended unexpectedly (${killedBy ?? code}).`, { cause: complaint === '' ? undefined : new Error(complaint) }));
        };
        signal.addEventListener('abort', onAbort, { once: true });
        child.on('message', onMessage);
        child.once('exit', onExit);
        child.send(request, (error) => error !== null && end(error));
      });
    } finally {
      child.stderr?.off('data', listen);
      this.#idle = setTimeout(() => this.#end(), idleMs);
      this.#idle.unref();
    }
  }

  /** Ends the process: what does not end within `graceMs` is killed. */
  async stop(graceMs: number): Promise<void> {
    clearTimeout(this.#idle);
    const child = this.#child;
    await within(this.#tail, graceMs);
    this.#end();
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    if (!(await within(once(child, 'exit'), graceMs))) child.kill('SIGKILL');
  }

  /** Ends the process at once. */
  kill(): void {
    this.#child?.kill('SIGKILL');
  }

  #start(): ChildProcess {
    // From the sources this is worker.ts, from the build worker.js: the same ending as this module.
    const ending = import.meta.url.slice(import.meta.url.lastIndexOf('.'));
    const child = fork(new URL(`./worker${ending}`, import.meta.url), [this.#cacheDir], { stdio: ['ignore', 'ignore', 'pipe', 'ipc'], serialization: 'json' });
    child.once('exit', () => {
      if (this.#child === child) this.#child = undefined;
    });
    child.on('error', () => undefined);
    return child;
  }

  #end(): void {
    const child = this.#child;
    this.#child = undefined;
    if (child?.connected === true) child.send('end', () => undefined);
  }
}

const pageBytes = 4096;

/** Resident memory of a process, bytes; 0 where the system does not tell it this way (only Linux does). */
function memoryOf(child: ChildProcess): number {
  try {
    return Number(readFileSync(`/proc/${child.pid}/statm`, 'utf8').split(' ')[1]) * pageBytes;
  } catch {
    return 0;
  }
}
