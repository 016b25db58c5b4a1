import { setImmediate, setTimeout } from 'node:timers/promises';
import { checkpointAt, type Checkpoints } from '../checkpoints/checkpoints.ts';
import { compiledQuery } from '../db/compiledQuery.ts';
import type { Database } from '../db/database.ts';
import type { IModelTable } from '../db/schema.ts';
import { graphicsAt, graphicsJob } from './rows.ts';

/** Name of the `secret` row that says that this installation has been looked through since it draws. */
const doneSecret = 'graphics-caught-up';
/** iModels per statement. */
const pageSize = 100;
/** How often to look whether the last drawing has ended, milliseconds. */
const pollMs = 1000;

/** Baselines of empty iModels are shared by all of them and have nothing to draw. */
const isEmpty = (baselineId: string): boolean => baselineId.startsWith('seed-');

interface Parts {
  database: Database;
  checkpoints: Checkpoints;
}

/**
 * Has the newest checkpoint of each iModel drawn if nothing was drawn when it was made: before the upgrade, or while
 * `graphics.enabled` was false. Earlier checkpoints are drawn on request. Runs in the background of a server that draws. It
 * schedules a drawing only when no other one is waiting or running, so what users do now waits for one drawing at most. A
 * server that is stopped in between goes through the iModels again and finds those that are still missing.
 * @returns the number of drawings that were scheduled
 */
export async function drawEarlierCheckpoints({ database, checkpoints }: Parts, signal: AbortSignal): Promise<number> {
  const { db } = database;
  if (await isCaughtUp(database)) return 0;
  let scheduled = 0;
  for (let after = '' as string | undefined; after !== undefined;) {
    const page: IModelTable[] = await db
      .selectFrom('imodel')
      .selectAll()
      .where('id', '>', after)
      .where('deleted_at', 'is', null)
      .where('state', '=', 'initialized')
      .orderBy('id')
      .limit(pageSize)
      .execute();
    for (const imodel of page) {
      if (await scheduleNewest({ database, checkpoints }, imodel, signal)) scheduled++;
      await setImmediate(undefined);
      if (signal.aborted) return scheduled;
    }
    after = page.length < pageSize ? undefined : page.at(-1)?.id;
  }
  await db
    .insertInto('secret')
    .values({ name: doneSecret, value: new Date().toISOString() })
    .onConflict((conflict) => conflict.doNothing())
    .execute();
  return scheduled;
}

/** To be called by a server of an installation that does not draw: what is made now is looked for when it draws again. */
export async function forgetCaughtUp(database: Database): Promise<void> {
  if (await isCaughtUp(database)) await database.db.deleteFrom('secret').where('name', '=', doneSecret).execute();
}

async function isCaughtUp({ db }: Database): Promise<boolean> {
  const done = await db.selectFrom('secret').select('name').where('name', '=', doneSecret).executeTakeFirst();
  return done !== undefined;
}

/** @returns whether a drawing was scheduled */
async function scheduleNewest(
  { database, checkpoints }: Parts,
  imodel: IModelTable,
  signal: AbortSignal,
): Promise<boolean> {
  const { db } = database;
  const newest = await checkpoints.nearest(imodel, imodel.head_index);
  if (newest === undefined || (newest.baseline_id !== null && isEmpty(newest.baseline_id))) return false;
  if ((await graphicsAt(db, newest)) !== undefined) return false;
  while ((await anyDrawing.first(db, {})) !== undefined) if (!(await pause(signal))) return false;
  return db.transaction().execute(async (tx) => {
    // Meanwhile it may have been drawn for a clone or on request, or removed with the last iModel that sees it.
    if ((await graphicsAt(tx, newest)) !== undefined) return false;
    if ((await checkpointAt(tx, newest))?.state !== 'successful') return false;
    await checkpoints.graphics.checkpointMade(tx, newest, { tenant: imodel.itwin_id, userId: imodel.creator_id });
    return true;
  });
}

const anyDrawing = compiledQuery((db, _: object) =>
  db.selectFrom('job').select('id').where('kind', '=', graphicsJob).where('state', 'in', ['ready', 'running']).limit(1),
);

/** @returns false if the server stops */
async function pause(signal: AbortSignal): Promise<boolean> {
  return setTimeout(pollMs, true, { signal }).catch(() => false);
}
