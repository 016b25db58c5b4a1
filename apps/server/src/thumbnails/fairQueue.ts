/** More work waits already than is waited for. */
export class QueueFullError extends Error {
  constructor() {
    super('too much work waits for its turn');
    this.name = 'QueueFullError';
  }
}

/** How much runs and waits at a time. */
interface Limits {
  running: number;
  waiting: number;
  waitingPerUser: number;
}

/** Lets work of several users run some at a time: of those who wait each has a turn before anyone has a second one. */
export class FairQueue {
  readonly #limits: Limits;
  /** Work that waits, by user, who comes next first. */
  readonly #waiting = new Map<string, (() => void)[]>();
  #running = 0;

  constructor(limits: Limits) {
    this.#limits = limits;
  }

  /**
   * Runs work when its turn comes.
   * @param signal ends the wait; what runs has to heed it by itself
   * @throws QueueFullError; the reason of the signal; what the work throws
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

  /** Hands the place of what has ended to whoever is next. */
  #next(): void {
    const first = this.#waiting.entries().next().value;
    if (first === undefined) {
      this.#running--;
      return;
    }
    const [user, own] = first;
    const begin = own.shift() as () => void;
    // To the end, behind everybody else who waits.
    this.#waiting.delete(user);
    if (own.length > 0) this.#waiting.set(user, own);
    begin();
  }
}
