import { outageOf } from '../outages.ts';

/** A dependency of the server. */
export interface Need {
  /** Public message for when it is unavailable. */
  reason: string;
  check(): Promise<unknown>;
}

/** Longest wait for all checks together, milliseconds: health probes time out after a few seconds. */
const waitMs = 1500;
const fullDisk = 'There is too little free disk space: reading and deleting work, nothing new is stored.';

/**
 * Checks the dependencies of the server. A check that does not end counts as failed and is not started again before it has
 * ended, so that repeated probes put no load on a database or store that hangs.
 */
export class Readiness {
  readonly #needs: readonly Need[];
  readonly #running = new Map<Need, Promise<unknown>>();

  constructor(needs: readonly Need[]) {
    this.#needs = needs;
  }

  /** @returns the reasons why the server is not ready, each with its cause; empty if it is ready */
  async missing(): Promise<{ reason: string; cause: unknown }[]> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<'late'>((resolve) => (timer = setTimeout(() => resolve('late'), waitMs)));
    try {
      const found = await Promise.all(this.#needs.map((need) => this.#look(need, late)));
      return found.filter((each) => each !== undefined);
    } finally {
      clearTimeout(timer);
    }
  }

  async #look(need: Need, late: Promise<'late'>): Promise<{ reason: string; cause: unknown } | undefined> {
    let running = this.#running.get(need);
    if (running === undefined) {
      running = need.check().finally(() => this.#running.delete(need));
      // It may fail after its caller stopped waiting; that must not be an unhandled rejection.
      running.catch(() => undefined);
      this.#running.set(need, running);
    }
    try {
      const outcome = await Promise.race([running, late]);
      return outcome === 'late'
        ? { reason: need.reason, cause: new Error(`no answer within ${waitMs} ms`) }
        : undefined;
    } catch (cause) {
      return { reason: outageOf(cause) === 'noSpace' ? fullDisk : need.reason, cause };
    }
  }
}
