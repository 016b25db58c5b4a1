import type { ElementTable } from './graphics.ts';

export type Difference = 'same' | 'added' | 'removed' | 'changed' | 'unknown';

export interface Comparison {
  /** By the index of the element in each table. */
  before: Difference[];
  after: Difference[];
  counts: Record<'added' | 'removed' | 'changed' | 'same' | 'unknown', number>;
}

/**
 * Compares what is drawn of the elements of two tables. An element without a hash was left out of the drawing, so nothing is known of
 * it; neither is of its counterpart.
 */
export function compare(before: ElementTable, after: ElementTable): Comparison {
  const counts = { added: 0, removed: 0, changed: 0, same: 0, unknown: 0 };
  const earlier = new Map(before.elements.id.map((id, n) => [id, n]));
  const ofBefore: Difference[] = new Array<Difference>(before.elements.id.length).fill('removed');
  const ofAfter = after.elements.id.map((id, n): Difference => {
    const counterpart = earlier.get(id);
    const hash = after.elements.hash[n];
    const old = counterpart === undefined ? undefined : before.elements.hash[counterpart];
    const difference =
      hash == null || old === null
        ? 'unknown'
        : counterpart === undefined
          ? 'added'
          : old === hash
            ? 'same'
            : 'changed';
    if (counterpart !== undefined) ofBefore[counterpart] = difference;
    counts[difference]++;
    return difference;
  });
  ofBefore.forEach((difference, n) => {
    if (difference !== 'removed') return;
    if (before.elements.hash[n] === null) {
      ofBefore[n] = 'unknown';
      counts.unknown++;
    } else counts.removed++;
  });
  return { before: ofBefore, after: ofAfter, counts };
}

/** Colours of differences, as shares of red, green and blue, and how far they replace the colour of the element. */
const colors: Record<Exclude<Difference, 'unknown'>, [number, number, number, number]> = {
  added: [0.1, 0.65, 0.25, 0.9],
  removed: [0.85, 0.15, 0.15, 0.9],
  changed: [0.98, 0.62, 0.05, 0.9],
  same: [0.72, 0.74, 0.77, 0.88],
};

export function colorsOf(differences: readonly Difference[]): ([number, number, number, number] | undefined)[] {
  return differences.map((difference) => (difference === 'unknown' ? undefined : colors[difference]));
}
