/** Something that tests run against, in a process of its own. */
export interface Stoppable {
  stop(): Promise<void>;
}

/**
 * Starts several services at once. When one does not start, those that did are stopped before the fault is told: none outlives
 * the run that wanted all of them.
 * @throws the first fault
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

/** Stops every service, also when stopping one of them fails. */
export async function stopAll(services: readonly Stoppable[]): Promise<void> {
  await Promise.allSettled(services.map(async (service) => service.stop()));
}
