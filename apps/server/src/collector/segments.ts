import { setImmediate } from 'node:timers/promises';
import type { Database, Db } from '../db/database.ts';
import { releaseBlobs } from '../storage/blobs.ts';
import { deleteGraphicsAbove } from '../graphics/rows.ts';
import type { Collected } from './collect.ts';
import { unlessInUse, type CollectorOptions } from './step.ts';

/** Changesets that one transaction deletes: about 5 ms on SQLite, whose transactions run on the main thread. */
const changesetsAtOnce = 200;

/**
 * Deletes what nothing can see of a segment and its history: the history, if neither an iModel, a transfer nor another history refers
 * to it; the changesets above every head that sees them, with their checkpoints; and the segment, once it has neither.
 */
export async function checkSegment(
  { db }: Database,
  id: string,
  options: CollectorOptions,
  collected: Collected,
): Promise<void> {
  const history = await db.selectFrom('history').select('id').where('segment_id', '=', id).executeTakeFirst();
  let reach: number | undefined;
  if (history !== undefined) {
    reach = await reachOf(db, history.id);
    if (reach === undefined) {
      // A concurrent insert that refers to it locks it, so either the insert or this deletion fails by the foreign key.
      const deleted = await unlessInUse(async () =>
        Number((await db.deleteFrom('history').where('id', '=', history.id).executeTakeFirst()).numDeletedRows),
      );
      collected.histories += deleted;
      if (deleted === 0) return;
    }
  }
  if (!(await isOrphaned(db, id))) return;
  await deleteAbove(db, id, reach ?? 0, options, collected);
  if (reach !== undefined) return;
  collected.segments += await unlessInUse(async () =>
    Number((await db.deleteFrom('segment').where('id', '=', id).executeTakeFirst()).numDeletedRows),
  );
}

/** Whether the iModel that could append to a segment is gone. */
async function isOrphaned(db: Db, segmentId: string): Promise<boolean> {
  const segment = await db
    .selectFrom('segment as s')
    .select('s.id')
    .where('s.id', '=', segmentId)
    .where((eb) =>
      eb.or([
        eb('s.owner_imodel_id', 'is', null),
        eb.not(eb.exists(eb.selectFrom('imodel as m').select('m.id').whereRef('m.id', '=', 's.owner_imodel_id'))),
      ]),
    )
    .executeTakeFirst();
  return segment !== undefined;
}

/**
 * The highest index at which something sees the segment of a history: iModels and transfers by their heads, and derived histories by where
 * they begin. Each is a seek in an index. Undefined if nothing refers to the history.
 */
async function reachOf(db: Db, historyId: string): Promise<number | undefined> {
  const heads = await db
    .selectNoFrom((eb) => [
      // Clone rule: the clone survives the deletion of its source.
      // Whatever iModel or transfer can see a changeset keeps it.
      eb
        .selectFrom('imodel')
        .select((of) => of.fn.max('head_index').as('head'))
        .where('history_id', '=', historyId)
        .as('ofIModels'),
      eb
        .selectFrom('transfer')
        .select((of) => of.fn.max('head_index').as('head'))
        .where('history_id', '=', historyId)
        .as('ofTransfers'),
      eb
        .selectFrom('history')
        .select((of) => of.fn.max('first_index').as('first'))
        .where('parent_id', '=', historyId)
        .as('ofChildren'),
    ])
    .executeTakeFirstOrThrow();
  const reaches = [
    heads.ofIModels,
    heads.ofTransfers,
    heads.ofChildren === null ? null : Number(heads.ofChildren) - 1,
  ].filter((reach) => reach !== null);
  return reaches.length === 0 ? undefined : Math.max(...reaches.map(Number));
}

/** Deletes the changesets of a segment above an index, their checkpoints and their graphics. */
async function deleteAbove(
  db: Db,
  segmentId: string,
  above: number,
  { signal }: CollectorOptions,
  collected: Collected,
): Promise<void> {
  const checkpoints = await db
    .deleteFrom('checkpoint')
    .where('segment_id', '=', segmentId)
    .where('changeset_index', '>', above)
    .executeTakeFirst();
  collected.checkpoints += Number(checkpoints.numDeletedRows);
  await deleteGraphicsAbove(db, segmentId, above);
  for (;;) {
    signal?.throwIfAborted();
    await setImmediate();
    const count = await deleteNewest(db, segmentId, above);
    collected.changesets += count;
    if (count < changesetsAtOnce) return;
  }
}

/** Deletes some changesets of a segment above an index, from the newest down. @returns how many */
function deleteNewest(db: Db, segmentId: string, above: number): Promise<number> {
  return db.transaction().execute(async (tx) => {
    const rows = await tx
      .selectFrom('changeset')
      .select(['index', 'blob_id'])
      .where('segment_id', '=', segmentId)
      .where('index', '>', above)
      .orderBy('index', 'desc')
      .limit(changesetsAtOnce)
      .execute();
    const lowest = rows.at(-1);
    if (lowest === undefined) return 0;
    await tx.deleteFrom('changeset').where('segment_id', '=', segmentId).where('index', '>=', lowest.index).execute();
    await releaseBlobs(
      tx,
      rows.map(({ blob_id }) => blob_id),
      Date.now(),
    );
    return rows.length;
  });
}
