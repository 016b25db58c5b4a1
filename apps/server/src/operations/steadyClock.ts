/** How far the wall clock may run ahead of the monotonic clock before it counts as set forward. */
const toleranceMs = 10_000;

/**
 * Wall clock for age-based deletions: setting the clock forward must not make anything old enough to delete. A step forward
 * is accepted only after it has lasted for `holdMs`; a step back is accepted immediately, because it only delays deletions.
 * Steps that happen while the process is not running cannot be detected.
 * @param holdMs how long a step forward is ignored, in milliseconds: the longest age that any deletion waits for
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
