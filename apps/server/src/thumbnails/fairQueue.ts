/** The queue is full, for all users or for this one. */
export class QueueFullError extends Error {
  constructor() {
    super('too much work is already waiting');
    this.name = 'QueueFullError';
  }
}

/** Limits for running and waiting work. */
interface Limits {
  running: number;
  waiting: number;
  waitingPerUser: number;
}

/** A bounded queue that runs a limited number of tasks at a time and serves waiting users round-robin. */
export class FairQueue {
  readonly #limits: Limits;
  /** Waiting work by user, in the order in which users are served. */
  readonly #waiting = new Map<string, (() => void)[]>();
  #running = 0;

  constructor(limits: Limits) {
    this.#limits = limits;
  }

  /**
   * Runs work as soon as a place is free.
   * @param signal ends the wait; running work has to observe it itself
   * @throws QueueFullError; the reason of the signal; errors of the work
   */
  async run<T>(user: string, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    signal.throwIfAborted();
    if (this.#running >= this.#limits.running) await this.#wait(user, signal);
    else this.#running++;
    try {
      return await work();
    } finally {
      this.#next();
    }
  }

  async #wait(user: string, signal: AbortSignal): Promise<void> {
    const own = this.#waiting.get(user) ?? [];
    const all = [...this.#waiting.values()].reduce((sum, { length }) => sum + length, 0);
    if (all >= this.#limits.waiting || own.length >= this.#limits.waitingPerUser) throw new QueueFullError();
    this.#waiting.set(user, own);
    await new Promise<void>((resolve, reject) => {
      const begin = (): void => {
        signal.removeEventListener('abort', onAbort);
        resolve();
      };
      const onAbort = (): void => {
        own.splice(own.indexOf(begin), 1);
        if (own.length === 0 && this.#waiting.get(user) === own) this.#waiting.delete(user);
        reject(signal.reason as Error);
      };
      own.push(begin);
      signal.addEventListener('abort', onAbort, { once: true });
    });
  }

  /** Passes the free place to the next waiting user. */
  #next(): void {
    const first = this.#waiting.entries().next().value;
    if (first === undefined) {
      this.#running--;
      return;
    }
    const [user, own] = first;
    const begin = own.shift() as () => void;
    // Move the user to the end of the round.
    this.#waiting.delete(user);
    if (own.length > 0) this.#waiting.set(user, own);
    begin();
  }
}
