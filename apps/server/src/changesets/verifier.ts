import type { Readable } from 'node:stream';
import { Worker } from 'node:worker_threads';
import { BoundedCache } from '../boundedCache.ts';
import type { Config } from '../config.ts';
import type { IdReply, IdRequest } from './idThread.ts';

/** Files that are verified at the same time: each may take 48 MiB of memory. */
const filesAtOnce = 4;
/** Longest time for one file, including its wait. A file that takes longer is accepted unverified, and logged. */
const limitMs = 120_000;
/** Bytes of a file per message to the thread. */
const pieceBytes = 64 * 1024;
/** Files up to this size are read when they arrive: in memory as a whole, and by the thread in one go. */
const mostOnArrival = 256 * 1024;
/** Files whose id is kept until their push is completed. Others are read from their store. */
const mostKept = 1000;

interface Log {
  warn: (details: object, message: string) => void;
}

/** The result of reading a file. */
type Outcome = Partial<IdReply> | 'tooSlow';

/** A file that was read when it arrived. */
interface Arrived {
  parentId: string;
  /** Rejects if the thread ended. */
  reply: Promise<IdReply>;
}

/** A file in its store. */
interface StoredFile {
  /** Id of its blob. */
  id: string;
  sha256: string;
}

/** Verifies that the ids of pushed changesets are those of their files. */
export class ChangesetVerifier {
  readonly #mode: Config['verifyChangesets'];
  readonly #log: Log;
  readonly #limitMs: number;
  readonly #waiting: (() => void)[] = [];
  readonly #answers = new Map<number, { resolve: (reply: IdReply) => void; reject: (error: Error) => void }>();
  readonly #arrived = new BoundedCache<string, Arrived>(mostKept);
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
   * @param stored what tells the file from others that arrived; if absent, it is read in any case
   * @throws if the file cannot be read
   */
  async faultOf(
    changeset: { id: string; parentId: string },
    open: () => Promise<Readable>,
    stored?: StoredFile,
  ): Promise<string | undefined> {
    if (!this.on) return undefined;
    const abandoned = new AbortController();
    const timer = setTimeout(() => abandoned.abort(), this.#limitMs);
    let outcome: Outcome;
    try {
      outcome =
        (stored && (await this.#outcomeOnArrival(stored, changeset.parentId, abandoned.signal))) ??
        (await this.#outcomeOf(changeset.parentId, open, abandoned.signal));
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

  /**
   * Reads a small file while it is being stored, so that the completion of its push need not read it again. It is read only if a slot
   * is free when its last byte has arrived.
   * @param parentId of the push that waits for the file
   * @returns takes the chunks of the file; undefined if it is not read now
   */
  onArrival(blobId: string, parentId: string, size: number): ((chunk: Buffer) => void) | undefined {
    if (!this.on || size === 0 || size > mostOnArrival) return undefined;
    let bytes: Uint8Array<ArrayBuffer> | undefined;
    let length = 0;
    return (chunk) => {
      // More than announced is refused elsewhere.
      if (length + chunk.length > size) return;
      (bytes ??= new Uint8Array(size)).set(chunk, length);
      length += chunk.length;
      if (length < size || this.#running >= filesAtOnce) return;
      this.#running++;
      const reply = this.#ask({ file: ++this.#files, parentId, bytes, end: true, withHash: true }, [bytes.buffer]);
      // It is awaited by the completion of the push, if there is one.
      reply.catch(() => undefined).finally(() => this.#endSlot());
      this.#arrived.set(blobId, { parentId, reply });
    };
  }

  async close(): Promise<void> {
    await this.#thread?.terminate();
  }

  /** What was read of a file when it arrived; undefined if it was not, or if other bytes are stored. */
  async #outcomeOnArrival(
    { id, sha256 }: StoredFile,
    parentId: string,
    abandoned: AbortSignal,
  ): Promise<Outcome | undefined> {
    const arrived = this.#arrived.get(id);
    if (arrived?.parentId !== parentId) return undefined;
    this.#arrived.delete(id);
    const tooSlow = Promise.withResolvers<'tooSlow'>();
    const give = (): void => tooSlow.resolve('tooSlow');
    abandoned.addEventListener('abort', give);
    try {
      const reply = await Promise.race([arrived.reply, tooSlow.promise]);
      return reply === 'tooSlow' || reply.sha256 === sha256 ? reply : undefined;
    } catch {
      return undefined;
    } finally {
      abandoned.removeEventListener('abort', give);
    }
  }

  async #outcomeOf(parentId: string, open: () => Promise<Readable>, abandoned: AbortSignal): Promise<Outcome> {
    await this.#waitForSlot();
    try {
      return abandoned.aborted ? 'tooSlow' : await this.#read(parentId, await open(), abandoned);
    } finally {
      this.#endSlot();
    }
  }

  async #waitForSlot(): Promise<void> {
    if (this.#running >= filesAtOnce) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    this.#running++;
  }

  #endSlot(): void {
    this.#running--;
    this.#waiting.shift()?.();
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

  #ask(request: IdRequest, transfer: ArrayBuffer[] = []): Promise<IdReply> {
    const thread = (this.#thread ??= this.#start());
    return new Promise((resolve, reject) => {
      this.#answers.set(request.file, { resolve, reject });
      thread.postMessage(request, transfer);
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
