/** A history, as far as its jump is determined by it. */
export interface Jumping<T> {
  depth: number;
  jump: T | undefined;
}

/**
 * The jump of a history below `parent`: an ancestor such that following jumps and parents reaches every ancestor in at most about
 * 2.3 log2(depth) steps, 28 at depth 5,000. A jump never changes, because the ancestors of a history do not.
 *
 * Source: E. W. Myers, "An applicative random-access stack", Information Processing Letters 17 (1983). If the last two jumps had
 * the same length, the new one spans both; otherwise it leads to the parent.
 */
export function jumpOf<T extends Jumping<T>>(parent: T): T {
  const { jump } = parent;
  return jump?.jump !== undefined && parent.depth - jump.depth === jump.depth - jump.jump.depth ? jump.jump : parent;
}
