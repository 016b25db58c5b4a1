import type { Readable } from 'node:stream';
import { Worker } from 'node:worker_threads';
import type { Config } from '../config.ts';
import type { IdReply, IdRequest } from './idThread.ts';

/** Files that are verified at the same time: each may take 48 MiB of memory. */
const filesAtOnce = 4;
/** Longest time for one file, including its wait. A file that takes longer is accepted unverified, and logged. */
const limitMs = 120_000;
/** Bytes of a file per message to the thread. */
const pieceBytes = 64 * 1024;

interface Log {
  warn: (details: object, message: string) => void;
}

/** The result of reading a file. */
type Outcome = Partial<IdReply> | 'tooSlow';

/** Verifies that the ids of pushed changesets are those of their files. */
export class ChangesetVerifier {
  readonly #mode: Config['verifyChangesets'];
  readonly #log: Log;
  readonly #limitMs: number;
  readonly #waiting: (() => void)[] = [];
  readonly #answers = new Map<number, { resolve: (reply: IdReply) => void; reject: (error: Error) => void }>();
  #running = 0;
  #files = 0;
  #thread: Worker | undefined;

  constructor(config: Pick<Config, 'verifyChangesets'>, log: Log, limits: { ms: number } = { ms: limitMs }) {
    this.#mode = config.verifyChangesets;
    this.#log = log;
    this.#limitMs = limits.ms;
  }

  get on(): boolean {
    return this.#mode !== 'off';
  }

  /**
   * Checks a file. @returns why it cannot be the changeset that it was pushed as; undefined if it can be
   * @param open opens the file for reading
   * @throws if the file cannot be read
   */
  async faultOf(
    changeset: { id: string; parentId: string },
    open: () => Promise<Readable>,
  ): Promise<string | undefined> {
    if (!this.on) return undefined;
    const abandoned = new AbortController();
    const timer = setTimeout(() => abandoned.abort(), this.#limitMs);
    let outcome: Outcome;
    try {
      await this.#waitForSlot();
      try {
        outcome = abandoned.signal.aborted
          ? 'tooSlow'
          : await this.#read(changeset.parentId, await open(), abandoned.signal);
      } finally {
        this.#running--;
        this.#waiting.shift()?.();
      }
    } finally {
      clearTimeout(timer);
    }
    const { id, fault, failure } =
      outcome === 'tooSlow' ? { failure: `its file takes more than ${this.#limitMs} ms to unpack` } : outcome;
    if (failure !== undefined) {
      this.#log.warn({ changesetId: changeset.id, reason: failure }, 'the id of a pushed changeset was not verified');
      return undefined;
    }
    if (fault?.unknownFormat === true) return this.#mode === 'all' ? fault.message : undefined;
    if (fault !== undefined) return fault.message;
    return id === changeset.id ? undefined : `the file gives the id ${id ?? ''}`;
  }

  async close(): Promise<void> {
    await this.#thread?.terminate();
  }

  async #waitForSlot(): Promise<void> {
    if (this.#running >= filesAtOnce) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    this.#running++;
  }

  /** Sends a file to the thread in pieces, of which the first also starts it and the last also ends it. */
  async #read(parentId: string, body: Readable, abandoned: AbortSignal): Promise<Outcome> {
    const file = ++this.#files;
    let next: IdRequest = { file, parentId };
    let isOver = false;
    try {
      // Leaving the loop closes the file.
      for await (const chunk of body) {
        const bytes = chunk as Buffer;
        for (let start = 0; start < bytes.length; start += pieceBytes) {
          if (abandoned.aborted) return 'tooSlow';
          const piece = Uint8Array.prototype.slice.call(bytes, start, start + pieceBytes);
          if (next.bytes === undefined) {
            next.bytes = piece;
            continue;
          }
          const reply = await this.#ask(next);
          if (reply.fault !== undefined || reply.failure !== undefined) return reply;
          next = { file, bytes: piece };
        }
      }
      const reply = await this.#ask({ ...next, end: true });
      isOver = true;
      return reply;
    } finally {
      if (!isOver) this.#thread?.postMessage({ file, forget: true } satisfies IdRequest);
    }
  }

  #ask(request: IdRequest): Promise<IdReply> {
    const thread = (this.#thread ??= this.#start());
    return new Promise((resolve, reject) => {
      this.#answers.set(request.file, { resolve, reject });
      thread.postMessage(request);
    });
  }

  #start(): Worker {
    // The extension is that of this module: idThread.ts in the sources, idThread.js in a build.
    const ending = import.meta.url.slice(import.meta.url.lastIndexOf('.'));
    const thread = new Worker(new URL(`./idThread${ending}`, import.meta.url));
    thread.unref();
    thread.on('message', (reply: IdReply) => {
      this.#answers.get(reply.file)?.resolve(reply);
      this.#answers.delete(reply.file);
    });
    const end = (error: Error): void => {
      if (this.#thread === thread) this.#thread = undefined;
      for (const { reject } of this.#answers.values()) reject(error);
      this.#answers.clear();
    };
    thread.on('error', (error) => end(error as Error));
    thread.on('exit', () => end(new Error('the thread that computes ids of changesets ended')));
    return thread;
  }
}
