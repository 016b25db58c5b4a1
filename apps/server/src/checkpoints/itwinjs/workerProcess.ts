import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Config } from '../../config.ts';
import { findIsolation, IsolationError, type Isolation } from './isolation.ts';
import type { IsolationLevel } from '../../domain.ts';
import { iTwinJsVersion } from './itwinjsVersion.ts';
import type { ModelWorker } from './modelWorker.ts';
import { killTree, memoryOf, startTree, treeOf } from './processTree.ts';
import { FinalError, PublicError } from '../../operations/reasons.ts';
import { within } from '../../operations/within.ts';
import type { CallOptions } from '../../storage/blobStore.ts';
import type { FaultKind, WorkerMessage, WorkRequest, WorkResult } from './worker.ts';

export interface WorkerLimits {
  /** Maximum memory of the process, bytes. Beyond it the process is killed and its work fails. */
  memoryBytes: number;
  /** Maximum time between two messages of the process, milliseconds. */
  silenceMs: number;
  /** Maximum time for one request (a file and at most 500 changesets), milliseconds. */
  workMs: number;
}

/** What a process does, and how messages to users call it. */
export interface ProcessKind {
  /** Its module. */
  script: URL;
  /** Subject of a sentence, such as `Making the file`. */
  work: string;
  /** Predicate of a sentence, such as `makes checkpoints`. */
  does: string;
  /** How long an idle process is kept, milliseconds. */
  idleMs: number;
}

/** A file cannot be processed. The message is shown to users; the cause has the details from the process. */
export class FileFaultError extends FinalError {
  readonly kind: FaultKind;
  /** The highest briefcase id used in a baseline that is kept despite the fault; 0 otherwise. */
  readonly highestBriefcaseId: number;
  constructor(message: string, kind: FaultKind, detail: string, highestBriefcaseId: number) {
    super(message, { cause: new Error(detail) });
    this.name = 'FileFaultError';
    this.kind = kind;
    this.highestBriefcaseId = highestBriefcaseId;
  }
}
/**
 * How much the folder of a request may grow: files grow while changesets are applied, and VACUUM writes them once more.
 */
const growth = { times: 4, bytes: 2 * 2 ** 30 };

/** Maximum size of the folder of a request whose files have `bytes` bytes. */
export function maxWorkBytes(bytes: number): number {
  return growth.times * bytes + growth.bytes;
}

/** The folder is measured in every nth round of the watch. */
const measureEvery = 3;

/** An idle process is stopped after this time, milliseconds. Starting one takes about 0.5 s. */
const idleMs = 60_000;
/** Interval of the watch, milliseconds. It is short because memory can grow by hundreds of MiB per second. */
const watchEveryMs = 100;

/**
 * Whether iTwin.js and its native part for this platform are installed. An install script downloads the native part, so
 * it is missing after an installation without scripts.
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

/** The process that makes model files. */
const fileProcess: ProcessKind = {
  // worker.ts in the sources, worker.js in the build: the same extension as this module.
  script: new URL(`./worker${import.meta.url.slice(import.meta.url.lastIndexOf('.'))}`, import.meta.url),
  work: 'Making the file',
  does: 'makes checkpoints',
  idleMs,
};

/** Runs the iTwin.js process of a slot. Starts it when there is work, and sends it one request at a time. */
export class WorkerProcess<Request extends { file: string } = WorkRequest, Result = WorkResult> implements ModelWorker<
  Request,
  Result
> {
  readonly #kind: ProcessKind;
  readonly #cacheDir: string;
  readonly #limits: WorkerLimits;
  readonly #isolation: Promise<Isolation>;
  #child: ChildProcess | undefined;
  #idle: NodeJS.Timeout | undefined;
  #tail: Promise<unknown> = Promise.resolve();

  /** @param isolation the isolation of the process, determined while the server starts */
  constructor(cacheDir: string, limits: WorkerLimits, isolation: Promise<Isolation>, kind = fileProcess) {
    this.#kind = kind;
    this.#cacheDir = cacheDir;
    this.#limits = limits;
    this.#isolation = isolation;
    // Prevents an unhandled rejection. `work` and `level` report the error.
    isolation.catch(() => undefined);
  }

  async version(): Promise<string> {
    return iTwinJsVersion();
  }

  async level(): Promise<IsolationLevel> {
    return (await this.#isolation).level;
  }

  get pid(): number | undefined {
    return this.#child === undefined ? undefined : treeOf(this.#child).at(-1);
  }

  async work(
    request: Request,
    options: CallOptions & { signal: AbortSignal },
    onApplied: (index: number) => void,
  ): Promise<Result> {
    const turn = this.#tail.then(() => this.#work(request, options, onApplied));
    this.#tail = turn.catch(() => undefined);
    return turn;
  }

  async #work(
    request: Request,
    options: CallOptions & { signal: AbortSignal },
    onApplied: (index: number) => void,
  ): Promise<Result> {
    const isolation = await this.#requireIsolation();
    const folder = path.dirname(request.file);
    await isolation.grantAccess(folder);
    // Checked after the last await: a signal that is already aborted raises no event for a later listener.
    options.signal.throwIfAborted();
    clearTimeout(this.#idle);
    const child = (this.#child ??= this.#start(isolation));
    let errorOutput = '';
    const listen = (text: Buffer): void => void (errorOutput = `${errorOutput}${text.toString()}`.slice(-2000));
    child.stderr?.on('data', listen);
    try {
      return await this.#exchange(child, request, options, onApplied, () => errorOutput);
    } finally {
      child.stderr?.off('data', listen);
      this.#idle = setTimeout(() => this.#end(), this.#kind.idleMs);
      this.#idle.unref();
    }
  }

  async #requireIsolation(): Promise<Isolation> {
    try {
      return await this.#isolation;
    } catch (error) {
      // The start banner and the log tell the operator what to do. Another attempt on this server would fail the same
      // way.
      throw error instanceof IsolationError
        ? new FinalError(
            `This server cannot isolate the process that ${this.#kind.does} as its configuration requires.`,
            {
              cause: error,
            },
          )
        : error;
    }
  }

  /** Sends one request to the process and waits for its result, within the limits. */
  #exchange(
    child: ChildProcess,
    request: Request,
    { signal, onProgress }: CallOptions & { signal: AbortSignal },
    onApplied: (index: number) => void,
    errorOutput: () => string,
  ): Promise<Result> {
    const folder = path.dirname(request.file);
    const maxDiskBytes = maxWorkBytes(bytesIn(folder));
    return new Promise<Result>((resolve, reject) => {
      let reason: Error | undefined;
      const startedAt = performance.now();
      let lastHeardAt = startedAt;
      const end = (why: Error): void => {
        reason ??= why;
        killTree(child);
      };
      let rounds = 0;
      const watch = setInterval(() => {
        onProgress?.();
        const now = performance.now();
        const exceeded = exceededLimit(this.#kind.work, this.#limits, {
          silenceMs: now - lastHeardAt,
          workMs: now - startedAt,
          memoryBytes: memoryOf(child),
          disk: rounds++ % measureEvery === 0 ? { bytes: bytesIn(folder), max: maxDiskBytes } : undefined,
        });
        if (exceeded !== undefined) end(exceeded);
      }, watchEveryMs);
      const onAbort = (): void => end(signal.reason as Error);
      const settle = (): void => {
        clearInterval(watch);
        signal.removeEventListener('abort', onAbort);
        child.off('message', onMessage);
        child.off('exit', onExit);
        child.off('error', onError);
      };
      const onMessage = (message: WorkerMessage<Result>): void => {
        lastHeardAt = performance.now();
        if ('applied' in message) return onApplied(message.applied);
        settle();
        if ('result' in message) resolve(message.result);
        else reject(new FileFaultError(message.fault, message.kind, message.detail, message.highestBriefcaseId));
      };
      const onExit = (code: number | null, killedBy: string | null): void => {
        settle();
        this.#child = undefined;
        const output = errorOutput();
        reject(
          reason ??
            new PublicError(`The process that ${this.#kind.does} ended unexpectedly (${killedBy ?? code}).`, {
              cause: output === '' ? undefined : new Error(output),
            }),
        );
      };
      // A process that cannot be started never emits `exit`.
      const onError = (error: Error): void => {
        if (child.pid !== undefined) return;
        settle();
        this.#child = undefined;
        reject(new PublicError(`The process that ${this.#kind.does} could not be started.`, { cause: error }));
      };
      signal.addEventListener('abort', onAbort, { once: true });
      child.on('error', onError);
      child.on('message', onMessage);
      child.once('exit', onExit);
      child.send(request, (error) => error !== null && end(error));
    });
  }

  async stop(graceMs: number): Promise<void> {
    clearTimeout(this.#idle);
    const child = this.#child;
    await within(this.#tail, graceMs);
    this.#end();
    if (child?.exitCode !== null || child.signalCode !== null) return;
    if (!(await within(once(child, 'exit'), graceMs))) killTree(child);
  }

  kill(): void {
    if (this.#child !== undefined) killTree(this.#child);
  }

  #start(isolation: Isolation): ChildProcess {
    const { file, args, options } = isolation.command(fileURLToPath(this.#kind.script), [this.#cacheDir], true);
    const child = startTree(file, args, options);
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

/**
 * Creates the worker of a slot from the configuration.
 * @param folder working folder of the slot, which contains all files to process
 */
export function localWorker(config: Config['checkpoints'], folder: string, slot: number): WorkerProcess {
  const limits = {
    memoryBytes: config.memoryMiB * 2 ** 20,
    silenceMs: config.silenceSeconds * 1000,
    workMs: config.workSeconds * 1000,
  };
  return new WorkerProcess(path.join(folder, 'itwinjs'), limits, findIsolation(folder, config.isolation, { slot }));
}

/** What one piece of work has used so far. `disk` is undefined in rounds that do not measure it. */
interface Usage {
  silenceMs: number;
  workMs: number;
  memoryBytes: number;
  disk: { bytes: number; max: number } | undefined;
}

/**
 * The error for the first limit that is exceeded. Final, because another attempt on the same files would exceed it too.
 */
function exceededLimit(work: string, limits: WorkerLimits, used: Usage): FinalError | undefined {
  if (used.silenceMs > limits.silenceMs)
    return new FinalError(`${work} showed no progress for ${limits.silenceMs / 1000} s and was stopped.`);
  if (used.workMs > limits.workMs)
    return new FinalError(`${work} took longer than ${limits.workMs / 1000} s and was stopped.`);
  if (used.memoryBytes > limits.memoryBytes)
    return new FinalError(
      `${work} took more than ${Math.round(limits.memoryBytes / 2 ** 20)} MiB of memory and was stopped.`,
    );
  if (used.disk !== undefined && used.disk.bytes > used.disk.max)
    return new FinalError(`${work} took more than ${Math.round(used.disk.max / 2 ** 20)} MiB of disk and was stopped.`);
  return undefined;
}

/**
 * Total size of the files in a folder, bytes; 0 if it does not exist, which happens if the server stops during work.
 */
function bytesIn(folder: string): number {
  if (!existsSync(folder)) return 0;
  let bytes = 0;
  for (const name of readdirSync(folder))
    bytes += statSync(path.join(folder, name), { throwIfNoEntry: false })?.size ?? 0;
  return bytes;
}
