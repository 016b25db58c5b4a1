/** Consecutive failures after which the cause is assumed to affect all steps. */
const mostInARow = 10;

/** Continues after the failure of single steps, so that one faulty item does not block the others. */
export class PastFailures {
  readonly #signal: AbortSignal | undefined;
  readonly #errors: unknown[] = [];
  #inARow = 0;

  /** @param signal once it is aborted, errors are rethrown immediately */
  constructor(signal?: AbortSignal) {
    this.#signal = signal;
  }

  /** Runs one step. @throws the error of the step after too many consecutive failures, or once the signal is aborted */
  async pass(step: () => Promise<void>): Promise<void> {
    try {
      await step();
      this.#inARow = 0;
    } catch (error) {
      if (this.#signal?.aborted === true || ++this.#inARow >= mostInARow) throw error;
      this.#errors.push(error);
    }
  }

  /** Call after the last step. @throws AggregateError if any step failed */
  end(): void {
    if (this.#errors.length > 0)
      throw new AggregateError(
        this.#errors,
        `${this.#errors.length} steps failed, the first: ${(this.#errors[0] as Error).message}`,
      );
  }
}
