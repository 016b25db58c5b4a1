/** Seconds by which the time of day may run ahead of the time that passes without being taken for set. */
const toleranceMs = 10_000;

/**
 * The time of day for deletions that wait for an age: when the clock is set ahead, nothing is older for that. The new time
 * counts once it has lasted as long as the wait itself; a clock that is set back is followed at once, which only delays.
 * What happens while no process runs, nobody can tell from time that passed.
 * @param holdMs how long a step ahead is not believed, milliseconds: the longest age that anything waits for
 */
export function steadyClock(
  holdMs: number,
  wall: () => number = Date.now,
  passed: () => number = () => performance.now(),
): () => number {
  let base = wall();
  let basePassed = passed();
  let aheadSince: number | undefined;
  return () => {
    const [now, at] = [wall(), passed()];
    const expected = base + (at - basePassed);
    if (now > expected + toleranceMs) {
      aheadSince ??= at;
      if (at - aheadSince < holdMs) return expected;
    }
    aheadSince = undefined;
    base = now;
    basePassed = at;
    return now;
  };
}
