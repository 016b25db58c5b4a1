import type { FastifyBaseLogger } from 'fastify';
import type { Collected } from './collect.ts';

/** Runs the collector now and then, one run at a time; a failed run is logged and the next one tries again. */
export class Collector {
  readonly #run: () => Promise<Collected>;
  readonly #log: FastifyBaseLogger;
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<Collected> | undefined;

  constructor(run: () => Promise<Collected>, log: FastifyBaseLogger) {
    this.#run = run;
    this.#log = log;
  }

  /** @param intervalSeconds 0 leaves it off */
  start(intervalSeconds: number): void {
    if (intervalSeconds <= 0) return;
    this.#timer = setInterval(() => {
      this.runOnce().catch((error: unknown) => this.#log.error({ err: error }, 'the collector failed; it tries again'));
    }, intervalSeconds * 1000);
    this.#timer.unref();
  }

  /** Waits for the run under way, if there is one, instead of starting another. */
  async runOnce(): Promise<Collected> {
    this.#running ??= this.#run().finally(() => (this.#running = undefined));
    const collected = await this.#running;
    if (Object.values(collected).some((count) => count > 0)) this.#log.info(collected, 'collected');
    return collected;
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.#running?.catch(() => undefined);
  }
}
