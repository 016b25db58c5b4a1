import { benchCrossStore } from '../../apps/server/src/bench/crossStore.ts';
import { attempt, compare, type Budget, type Figure } from '../common.ts';
import type { Load } from '../load/load.ts';
import { measureImport } from './bulkImport.ts';
import { measureFirstPush } from './firstPush.ts';
import type { Scale } from './peers.ts';
import { measurePostgres } from './postgres.ts';
import { measureShapes } from './shapes.ts';

/** Seconds that a comparison needs on a slow machine; it is left out if less is left. */
const needed = { postgres: 40, firstPush: 30, bulkImport: 60, crossStore: 90 };

/** What needs installations of its own, in the order of what it tells. */
export async function furtherFigures(scale: Scale, budget: Budget, load: Load): Promise<Figure[]> {
  const figures: Figure[] = [];
  const add = async (what: string, seconds: number, measure: () => Promise<Figure[]>): Promise<void> => {
    if (budget.allows(what, seconds)) figures.push(...((await attempt(what, measure)) ?? []));
  };
  await add('PostgreSQL', needed.postgres, () => measurePostgres(scale, budget, load));
  await add('first pushes', needed.firstPush, () => measureFirstPush());
  await add('import', needed.bulkImport, () => measureImport());
  await add('clone across stores', needed.crossStore, compareCrossStore);
  figures.push(...(await measureShapes(budget, load)));
  return figures;
}

async function compareCrossStore(): Promise<Figure[]> {
  const found = await benchCrossStore({ files: 10_000, megabytes: 1000, kills: 0, onStart: () => undefined });
  const what = 'clone of 10,000 files, 1 GB, into another store';
  return [
    compare(what, 's', [found.seconds], 'copy, hashed and synced', [found.hashedCopySeconds]),
    compare(what, 's', [found.seconds], 'plain copy', [found.plainCopySeconds]),
  ];
}
