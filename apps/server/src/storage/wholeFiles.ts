import { Worker } from 'node:worker_threads';
import { UnavailableError } from '../outages.ts';
import type { WholeFile, WholeFileReply } from './wholeFileThread.ts';

/** An idle thread ends after this time, milliseconds: it takes about 10 MiB of memory. */
const idleMs = 30_000;

/** Whether the file was written is unknown. Nothing refers to it. */
class FileThreadEndedError extends UnavailableError {
  constructor(cause: unknown) {
    super('the thread that writes files has ended', { cause });
    this.name = 'FileThreadEndedError';
  }
}

interface Writing {
  resolve: (sha256: string) => void;
  reject: (error: Error) => void;
}

/** Writes small files durably, one at a time, in a thread that starts when it is needed. A thread that ends is replaced. */
export class WholeFiles {
  #worker: Worker | undefined;
  #writing: Writing | undefined;
  #idle: NodeJS.Timeout | undefined;

  /** Whether a file is being written. */
  get isBusy(): boolean {
    return this.#writing !== undefined;
  }

  /**
   * Writes a file, syncs it, renames it, and syncs its folder. The bytes are moved to the thread. Call it only while no other file
   * is being written.
   * @returns the SHA-256 of the bytes, hex
   * @throws the error of the file system, with its `code`; FileThreadEndedError
   */
  write(file: WholeFile): Promise<string> {
    return new Promise((resolve, reject) => {
      const worker = (this.#worker ??= this.#start());
      // Referenced only while a file is written, so that an idle thread does not keep the process alive.
      worker.ref();
      this.#writing = { resolve, reject };
      worker.postMessage(file, [file.bytes.buffer]);
    });
  }

  #start(): Worker {
    // From the sources this is wholeFileThread.ts, from the build wholeFileThread.js: the same ending as this module.
    const ending = import.meta.url.slice(import.meta.url.lastIndexOf('.'));
    const worker = new Worker(new URL(`./wholeFileThread${ending}`, import.meta.url));
    worker.on('message', (reply: WholeFileReply) => {
      worker.unref();
      this.#idle?.refresh();
      const writing = this.#take();
      if ('sha256' in reply) writing?.resolve(reply.sha256);
      else writing?.reject(Object.assign(new Error(reply.error.message), { code: reply.error.code }));
    });
    let cause: unknown;
    worker.on('error', (error) => void (cause = error));
    worker.on('exit', () => {
      if (this.#worker !== worker) return;
      this.#worker = undefined;
      this.#take()?.reject(new FileThreadEndedError(cause));
    });
    this.#idle = setTimeout(() => this.#endIdle(), idleMs).unref();
    return worker;
  }

  #take(): Writing | undefined {
    const writing = this.#writing;
    this.#writing = undefined;
    return writing;
  }

  #endIdle(): void {
    if (this.isBusy) {
      this.#idle?.refresh();
      return;
    }
    this.#worker?.postMessage('close');
    this.#worker = undefined;
  }
}
