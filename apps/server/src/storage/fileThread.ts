import { Worker } from 'node:worker_threads';
import { UnavailableError } from '../outages.ts';

/** An idle thread ends after this time, milliseconds: it takes about 10 MiB of memory. */
const idleMs = 30_000;

/** An error of the file system, as a thread reports it. */
export interface ThreadFault {
  error: { message: string; code: string | undefined };
}

/** What was being written when the thread ended is unknown. Nothing refers to it. */
class FileThreadEndedError extends UnavailableError {
  constructor(cause?: unknown) {
    super('the thread that writes files has ended', { cause });
    this.name = 'FileThreadEndedError';
  }
}

interface Asked<Reply> {
  resolve: (reply: Reply) => void;
  reject: (error: Error) => void;
}

/**
 * A thread that writes files with calls that wait. It answers requests in order, starts when it is needed and ends when it is idle.
 * A thread that fails is replaced.
 */
export class FileThread<Request, Reply extends object> {
  readonly #module: string;
  #worker: Worker | undefined;
  #asked: Asked<Reply>[] = [];
  /** Files that are open in the thread, which knows their state. */
  #open = 0;
  #idle: NodeJS.Timeout | undefined;

  /** @param module name of the module beside this one, without its ending */
  constructor(module: 'wholeFileThread' | 'pieceThread') {
    this.#module = module;
  }

  /** Whether a request is being executed. */
  get isBusy(): boolean {
    return this.#asked.length > 0;
  }

  /**
   * @param transfer memory that is moved to the thread
   * @throws the error of the file system, with its `code`; FileThreadEndedError
   */
  ask(request: Request, transfer: readonly ArrayBuffer[] = []): Promise<Reply> {
    return new Promise((resolve, reject) => {
      const worker = (this.#worker ??= this.#start());
      worker.postMessage(request, transfer);
      this.#asked.push({ resolve, reject });
      // Referenced only while an answer is awaited, so that an idle thread does not keep the process alive.
      worker.ref();
    });
  }

  /**
   * Opens a file of which the thread keeps the state between requests.
   * @returns `ask` fails if the thread has ended meanwhile; call `close` at the end
   */
  open(): { ask: FileThread<Request, Reply>['ask']; close: (last: Request) => void } {
    const worker = (this.#worker ??= this.#start());
    this.#open++;
    return {
      ask: (request, transfer) =>
        this.#worker === worker ? this.ask(request, transfer) : Promise.reject(new FileThreadEndedError()),
      close: (last) => {
        this.#open--;
        if (this.#worker === worker) worker.postMessage(last);
      },
    };
  }

  #start(): Worker {
    // From the sources the module ends in .ts, from the build in .js: the same ending as this module.
    const ending = import.meta.url.slice(import.meta.url.lastIndexOf('.'));
    const worker = new Worker(new URL(`./${this.#module}${ending}`, import.meta.url));
    const asked: Asked<Reply>[] = [];
    this.#asked = asked;
    worker.on('message', (reply: Reply | ThreadFault) => {
      const next = asked.shift();
      if (asked.length === 0) worker.unref();
      this.#idle?.refresh();
      if ('error' in reply) next?.reject(Object.assign(new Error(reply.error.message), { code: reply.error.code }));
      else next?.resolve(reply);
    });
    let cause: unknown;
    worker.on('error', (error) => void (cause = error));
    worker.on('exit', () => {
      if (this.#worker === worker) this.#worker = undefined;
      for (const { reject } of asked.splice(0)) reject(new FileThreadEndedError(cause));
    });
    worker.unref();
    clearTimeout(this.#idle);
    this.#idle = setTimeout(() => this.#endIdle(), idleMs).unref();
    return worker;
  }

  #endIdle(): void {
    if (this.isBusy || this.#open > 0) {
      this.#idle?.refresh();
      return;
    }
    this.#worker?.postMessage('close');
    this.#worker = undefined;
  }
}
