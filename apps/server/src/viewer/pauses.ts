/** How long something that failed is left alone, milliseconds. */
const pauseMs = 30_000;

/**
 * Leaves something that fails alone for a while: after a failure it is tried once every 30 s until it succeeds. Only the first
 * failure is reported.
 */
export class Pauses {
  readonly #onFailure: (error: unknown) => void;
  #isFailing = false;
  /** Elapsed time, ms. */
  #until = 0;

  constructor(onFailure: (error: unknown) => void) {
    this.#onFailure = onFailure;
  }

  /** Whether to try now. During a failure, the caller to which this answers true is the only one that tries. */
  ready(): boolean {
    if (!this.#isFailing) return true;
    if (performance.now() < this.#until) return false;
    this.#until = performance.now() + pauseMs;
    return true;
  }

  succeeded(): void {
    this.#isFailing = false;
  }

  failed(error: unknown): void {
    if (!this.#isFailing) this.#onFailure(error);
    this.#isFailing = true;
    this.#until = performance.now() + pauseMs;
  }
}
