import { outageOf } from '../outages.ts';

/** Something that the server needs to serve. */
export interface Need {
  /** What is told when it is missing; everybody may read it. */
  reason: string;
  check(): Promise<unknown>;
}

/** Longest wait for all checks together, ms: whoever asks gives up after some seconds. */
const waitMs = 1500;
const fullDisk = 'There is too little free disk space: reading and deleting work, nothing new is stored.';

/**
 * Whether the server can serve. A check that does not end counts as failed and is not begun again before it has ended, so
 * that asking again and again takes nothing from a database or a store that hangs.
 */
export class Readiness {
  readonly #needs: readonly Need[];
  readonly #running = new Map<Need, Promise<unknown>>();

  constructor(needs: readonly Need[]) {
    this.#needs = needs;
  }

  /** @returns why the server is not ready, each with its cause; empty when it is */
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
      // Nobody may wait for it any more when it fails.
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
