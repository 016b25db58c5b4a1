import type { FastifyBaseLogger } from 'fastify';
import { within } from '../operations/within.ts';
import type { Collected } from './collect.ts';

/** Runs the collector at an interval, one run at a time. A failed run is logged; the next run starts at the usual time. */
export class Collector {
  readonly #run: (signal: AbortSignal) => Promise<Collected>;
  readonly #log: FastifyBaseLogger;
  #timer: NodeJS.Timeout | undefined;
  readonly #ending = new AbortController();
  #running: Promise<Collected> | undefined;

  /** @param run one run of the collector; it ends between two steps when the signal is aborted */
  constructor(run: (signal: AbortSignal) => Promise<Collected>, log: FastifyBaseLogger) {
    this.#run = run;
    this.#log = log;
  }

  /** @param intervalSeconds 0 turns the collector off */
  start(intervalSeconds: number): void {
    if (intervalSeconds <= 0) return;
    this.#timer = setInterval(() => {
      this.runOnce().catch((error: unknown) => {
        if (!this.#ending.signal.aborted)
          this.#log.error({ err: error }, 'collector run failed; the next run tries again');
      });
    }, intervalSeconds * 1000);
    this.#timer.unref();
  }

  /** Runs the collector now, or waits for the current run if there is one. */
  async runOnce(): Promise<Collected> {
    this.#running ??= this.#run(this.#ending.signal).finally(() => (this.#running = undefined));
    const collected = await this.#running;
    if (Object.values(collected).some((count) => count > 0)) this.#log.info(collected, 'collected');
    return collected;
  }

  /** Ends the current run after its current step; the next run does the remaining work. @param graceMs how long to wait for that step */
  async stop(graceMs: number): Promise<void> {
    clearInterval(this.#timer);
    this.#ending.abort(new Error('the server ends'));
    if (this.#running !== undefined) await within(this.#running, graceMs);
  }
}
