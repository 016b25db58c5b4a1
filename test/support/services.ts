/** A service for tests, in a separate process. */
export interface Stoppable {
  stop(): Promise<void>;
}

/**
 * Starts several services concurrently. If one fails to start, the others are stopped before the error is thrown, so that none
 * outlives the run.
 * @throws the first error
 */
export async function startAll<T extends readonly Stoppable[]>(
  ...starts: { [K in keyof T]: () => Promise<T[K]> }
): Promise<T> {
  const outcomes = await Promise.allSettled(starts.map(async (start) => start()));
  const fault = outcomes.find((outcome) => outcome.status === 'rejected');
  if (fault === undefined)
    return outcomes.map((outcome) => (outcome as PromiseFulfilledResult<Stoppable>).value) as unknown as T;
  await stopAll(outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : [])));
  throw fault.reason as Error;
}

/** Stops every service, also if stopping one of them fails. */
export async function stopAll(services: readonly Stoppable[]): Promise<void> {
  await Promise.allSettled(services.map(async (service) => service.stop()));
}
