import type { Db } from '../db/database.ts';

/** Contents that are looked up together. */
const atOnce = 100;

/** A content: `s-{segment}-{index}-{version}` or `b-{baseline}-0-{version}`. The baseline of empty iModels has an id of its own form. */
const contentPattern = /^([sb])-([0-9a-f-]{36}|seed-[0-9a-f]+(?:-[0-9a-f]{16})?)-(\d{1,15})-(.+)$/;

/**
 * Removes the tiles of changesets and baselines that the collector has removed, and those that another version of iTwin.js
 * made. Run after the collector.
 * @param version version of iTwin.js; undefined to keep the tiles of every version
 * @returns the number of contents whose tiles were removed
 */
export async function removeOrphanTiles(
  db: Db,
  tiles: { contents: () => Promise<string[]>; remove: (content: string) => Promise<void> },
  version: string | undefined,
  signal: AbortSignal,
): Promise<number> {
  const contents = (await tiles.contents()).map((name) => {
    const [, kind, id = '', index, made] = contentPattern.exec(name) ?? [];
    return { name, kind, id, index: Number(index), current: version === undefined || made === version };
  });
  let removed = 0;
  for (let n = 0; n < contents.length; n += atOnce) {
    signal.throwIfAborted();
    const some = contents.slice(n, n + atOnce);
    const ids = (kind: string): string[] => some.filter((each) => each.kind === kind).map(({ id }) => id);
    const [baselines, changesets] = await Promise.all([
      ids('b').length === 0 ? [] : db.selectFrom('baseline').select('id').where('id', 'in', ids('b')).execute(),
      ids('s').length === 0
        ? []
        : db
            .selectFrom('changeset')
            .select(['segment_id', 'index'])
            .where('segment_id', 'in', ids('s'))
            .where(
              'index',
              'in',
              some.filter(({ kind }) => kind === 's').map(({ index }) => index),
            )
            .execute(),
    ]);
    const known = new Set([
      ...baselines.map(({ id }) => `b-${id}-0`),
      ...changesets.map(({ segment_id, index }) => `s-${segment_id}-${index}`),
    ]);
    for (const { name, kind, id, index, current } of some)
      if (!current || !known.has(`${kind}-${id}-${index}`)) {
        await tiles.remove(name);
        removed++;
      }
  }
  return removed;
}
