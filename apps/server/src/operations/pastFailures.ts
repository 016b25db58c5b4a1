/** Failures one after the other that are no exceptions any more: whatever all steps need is gone. */
const mostInARow = 10;

/** Goes on past single failures of many steps of one kind, so that what is wrong with one keeps none of the others. */
export class PastFailures {
  readonly #signal: AbortSignal | undefined;
  readonly #errors: unknown[] = [];
  #inARow = 0;

  /** @param signal whose abortion is no failure but the end */
  constructor(signal?: AbortSignal) {
    this.#signal = signal;
  }

  /** Does one step. @throws what it throws when too many in a row did, or when everything ends */
  async pass(step: () => Promise<void>): Promise<void> {
    try {
      await step();
      this.#inARow = 0;
    } catch (error) {
      if (this.#signal?.aborted === true || ++this.#inARow >= mostInARow) throw error;
      this.#errors.push(error);
    }
  }

  /** After all steps. @throws AggregateError with what went wrong, if anything did */
  end(): void {
    if (this.#errors.length > 0)
      throw new AggregateError(
        this.#errors,
        `${this.#errors.length} steps failed, the first: ${(this.#errors[0] as Error).message}`,
      );
  }
}
