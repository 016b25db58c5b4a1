import { ApiError } from '../errors.ts';

/** How long a request waits for memory, milliseconds. */
const waitMs = 10_000;
/** Requests that wait; further ones are refused at once. */
const mostWaiting = 1000;
/** Share of the memory that one user may have. One who has none may have it for one answer of any size. */
const userShare = 1 / 4;

/** Reserves memory for a part of an answer. @throws AnswersFullError after 10 s, ApiError if it never fits, or what aborted the request */
export type Reserve = (bytes: number, signal: AbortSignal) => Promise<void>;

/** The memory for answers is in use. The request may be sent again later. */
export class AnswersFullError extends Error {
  constructor() {
    super('the memory for answers to viewers is in use (viewer.answersMiB)');
    this.name = 'AnswersFullError';
  }
}

interface Wanted {
  user: string;
  /** What the request has already. */
  own: number;
  bytes: number;
}

interface Waiting extends Wanted {
  admit(): void;
}

/**
 * Bounds the memory of all answers to viewers together, from the first byte that is read until the last one is sent. Somebody
 * who asks for much and reads slowly therefore occupies no more than the share of one user, or one answer.
 */
export class AnswerMemory {
  /** Maximum size of all answers, bytes. */
  readonly limit: number;
  #bytes = 0;
  readonly #ofUsers = new Map<string, number>();
  /** Those that have waited longest first. */
  readonly #waiting = new Set<Waiting>();

  constructor(limit: number) {
    this.limit = limit;
  }

  /** Size of all answers that are read or sent now. */
  get bytes(): number {
    return this.#bytes;
  }

  /** The memory of one request, which takes none yet. */
  hold(user: string): HeldMemory {
    return new HeldMemory(this, user);
  }

  /** Takes memory, as soon as it is free and those that waited before have theirs. @throws AnswersFullError, or what aborted `signal` */
  take(wanted: Wanted, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#waiting.size >= mostWaiting) return reject(new AnswersFullError());
      if (signal.aborted) return reject(signal.reason as Error);
      const end = (): void => {
        clearTimeout(timer);
        signal.removeEventListener('abort', onAbort);
        this.#waiting.delete(waiting);
      };
      const refuse = (error: Error): void => {
        end();
        reject(error);
        // Those behind it may fit.
        this.#admit();
      };
      const onAbort = (): void => refuse(signal.reason as Error);
      const admit = (): void => {
        end();
        resolve();
      };
      const waiting: Waiting = { ...wanted, admit };
      const timer = setTimeout(() => refuse(new AnswersFullError()), waitMs);
      signal.addEventListener('abort', onAbort, { once: true });
      this.#waiting.add(waiting);
      this.#admit();
    });
  }

  /** Takes memory if it is free. @throws AnswersFullError */
  takeNow(wanted: Wanted): void {
    if (!this.#fits(wanted) || !this.#fitsUser(wanted)) throw new AnswersFullError();
    this.#add(wanted.user, wanted.bytes);
  }

  give(user: string, bytes: number): void {
    if (bytes === 0) return;
    this.#add(user, -bytes);
    this.#admit();
  }

  #fits({ bytes }: Wanted): boolean {
    return this.#bytes + bytes <= this.limit;
  }

  #fitsUser({ user, own, bytes }: Wanted): boolean {
    const before = this.#ofUsers.get(user) ?? 0;
    return before === own || before + bytes <= this.limit * userShare;
  }

  #add(user: string, bytes: number): void {
    const now = (this.#ofUsers.get(user) ?? 0) + bytes;
    if (now === 0) this.#ofUsers.delete(user);
    else this.#ofUsers.set(user, now);
    this.#bytes += bytes;
  }

  /** Users who have their share let others pass. What is too large for now does not, or it would wait forever. */
  #admit(): void {
    for (const waiting of this.#waiting) {
      if (!this.#fitsUser(waiting)) continue;
      if (!this.#fits(waiting)) return;
      this.#add(waiting.user, waiting.bytes);
      waiting.admit();
    }
  }
}

/** The memory of the answer to one request. */
export class HeldMemory {
  readonly #memory: AnswerMemory;
  readonly #user: string;
  #bytes = 0;
  #hasEnded = false;

  constructor(memory: AnswerMemory, user: string) {
    this.#memory = memory;
    this.#user = user;
  }

  readonly reserve: Reserve = async (bytes, signal) => {
    await this.#memory.take(this.#wanted(bytes), signal);
    this.#bytes += bytes;
    if (this.#hasEnded) this.release();
  };

  /** Reserves memory without waiting. @throws AnswersFullError, or ApiError if it never fits */
  readonly reserveNow = (bytes: number): void => {
    this.#memory.takeNow(this.#wanted(bytes));
    this.#bytes += bytes;
  };

  /** Returns the memory of an answer that is replaced by another one. */
  release(): void {
    this.#memory.give(this.#user, this.#bytes);
    this.#bytes = 0;
  }

  /** Returns the memory: the answer has been sent, or nobody waits for it any more. */
  end(): void {
    this.#hasEnded = true;
    this.release();
  }

  #wanted(bytes: number): Wanted {
    if (this.#hasEnded) throw new AnswersFullError();
    if (this.#bytes + bytes > this.#memory.limit) throw answerTooLarge(this.#memory.limit);
    return { user: this.#user, own: this.#bytes, bytes };
  }
}

/** @param most maximum size, bytes */
export function answerTooLarge(most: number): ApiError {
  return new ApiError('ViewerBackendUnusable', {
    message: 'The answer of the view back end is larger than this server accepts.',
    cause: new Error(`an answer has more than ${most} bytes`),
  });
}
