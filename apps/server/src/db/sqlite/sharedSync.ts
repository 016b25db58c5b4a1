/** Calls that wait for the same sync. */
interface Batch {
  promise: Promise<void>;
  resolve: () => void;
  reject: (error: Error) => void;
}

function newBatch(): Batch {
  const { promise, resolve, reject } = Promise.withResolvers<undefined>();
  // A batch may have no caller left that waits.
  promise.catch(() => undefined);
  return { promise, resolve: () => resolve(undefined), reject };
}

/**
 * Syncs a file for many writers at once: everybody who has written waits for a sync that began after their write, and at most one
 * sync runs at a time. A commit costs one sync on an idle server, and a fraction of one under load.
 */
export class SharedSync {
  readonly #sync: () => Promise<void>;
  /** The sync that is running. */
  #running: Batch | undefined;
  /** The sync that begins when the running one has ended. */
  #next: Batch | undefined;

  /** @param sync makes everything that was written before the call durable */
  constructor(sync: () => Promise<void>) {
    this.#sync = sync;
  }

  /** Resolves when everything that is written now is durable. @throws the error of the sync */
  written(): Promise<void> {
    this.#next ??= newBatch();
    const { promise } = this.#next;
    if (this.#running === undefined) this.#begin();
    return promise;
  }

  /** Resolves when everything that has been written is durable; undefined if it is. */
  get pending(): Promise<void> | undefined {
    return (this.#next ?? this.#running)?.promise;
  }

  #begin(): void {
    const batch = this.#next;
    if (batch === undefined) return;
    this.#next = undefined;
    this.#running = batch;
    this.#sync()
      .then(batch.resolve, batch.reject)
      .finally(() => {
        this.#running = undefined;
        this.#begin();
      });
  }
}
