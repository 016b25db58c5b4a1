import type { FastifyBaseLogger } from 'fastify';
import { within } from '../operations/within.ts';
import type { Collected } from './collect.ts';

/** Runs the collector now and then, one run at a time; a failed run is logged and the next one tries again. */
export class Collector {
  readonly #run: (signal: AbortSignal) => Promise<Collected>;
  readonly #log: FastifyBaseLogger;
  #timer: NodeJS.Timeout | undefined;
  readonly #ending = new AbortController();
  #running: Promise<Collected> | undefined;

  /** @param run one run, which ends between two of its steps when the signal is aborted */
  constructor(run: (signal: AbortSignal) => Promise<Collected>, log: FastifyBaseLogger) {
    this.#run = run;
    this.#log = log;
  }

  /** @param intervalSeconds 0 leaves it off */
  start(intervalSeconds: number): void {
    if (intervalSeconds <= 0) return;
    this.#timer = setInterval(() => {
      this.runOnce().catch((error: unknown) => {
        if (!this.#ending.signal.aborted) this.#log.error({ err: error }, 'the collector failed; it tries again');
      });
    }, intervalSeconds * 1000);
    this.#timer.unref();
  }

  /** Waits for the run under way, if there is one, instead of starting another. */
  async runOnce(): Promise<Collected> {
    this.#running ??= this.#run(this.#ending.signal).finally(() => (this.#running = undefined));
    const collected = await this.#running;
    if (Object.values(collected).some((count) => count > 0)) this.#log.info(collected, 'collected');
    return collected;
  }

  /** Ends the run under way after the step that it is at; what is left the next run takes. @param graceMs how long that step is waited for */
  async stop(graceMs: number): Promise<void> {
    clearInterval(this.#timer);
    this.#ending.abort(new Error('the server ends'));
    if (this.#running !== undefined) await within(this.#running, graceMs);
  }
}
