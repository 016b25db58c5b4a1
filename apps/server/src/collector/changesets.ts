import type { Database, Db } from '../db/database.ts';
import { releaseBlobs } from '../storage/blobs.ts';
import { chunk, type CollectorOptions } from './step.ts';

/**
 * Deletes the changesets of orphaned segments that are above every head that can see them, and their checkpoints. Of a
 * segment in no history, that is all of them.
 */
export async function deleteUnreachableChangesets(
  { db }: Database,
  { signal }: CollectorOptions,
): Promise<{ changesets: number; checkpoints: number }> {
  const deleted = { changesets: 0, checkpoints: 0 };
  for (const { id, reach } of await orphanedSegments(db)) {
    const above = reach ?? 0;
    signal?.throwIfAborted();
    const checkpoints = await db
      .deleteFrom('checkpoint')
      .where('segment_id', '=', id)
      .where('changeset_index', '>', above)
      .executeTakeFirst();
    deleted.checkpoints += Number(checkpoints.numDeletedRows);
    for (;;) {
      signal?.throwIfAborted();
      const count = await deleteNewest(db, id, above);
      deleted.changesets += count;
      if (count < chunk) break;
    }
  }
  return deleted;
}

/** Segments without an owner, and the highest index at which some iModel or transfer can see each of them. */
async function orphanedSegments(db: Db) {
  return db
    .selectFrom('segment')
    .select((eb) => [
      'segment.id',
      eb
        .selectFrom('history_segment as h')
        .innerJoin(
          // Clone rule: the clone survives the deletion of its source.
          // Whatever iModel or transfer can see a changeset keeps it.
          (join) =>
            join
              .selectFrom('imodel')
              .select(['history_id', 'head_index'])
              .unionAll(join.selectFrom('transfer').select(['history_id', 'head_index']))
              .as('m'),
          (on) => on.onRef('m.history_id', '=', 'h.history_id'),
        )
        .select((inner) =>
          inner.fn
            .max(
              inner
                .case()
                .when('m.head_index', '<', inner.ref('h.last_index'))
                .then(inner.ref('m.head_index'))
                .else(inner.ref('h.last_index'))
                .end(),
            )
            .as('reach'),
        )
        .whereRef('h.segment_id', '=', 'segment.id')
        .whereRef('m.head_index', '>=', 'h.first_index')
        .as('reach'),
    ])
    .where('segment.owner_imodel_id', 'is', null)
    .execute();
}

/** Deletes one chunk of the changesets of a segment above an index, from the newest down. @returns how many */
function deleteNewest(db: Db, segmentId: string, above: number): Promise<number> {
  return db.transaction().execute(async (tx) => {
    const rows = await tx
      .selectFrom('changeset')
      .select(['index', 'blob_id'])
      .where('segment_id', '=', segmentId)
      .where('index', '>', above)
      .orderBy('index', 'desc')
      .limit(chunk)
      .execute();
    const lowest = rows.at(-1);
    if (lowest === undefined) return 0;
    await tx.deleteFrom('changeset').where('segment_id', '=', segmentId).where('index', '>=', lowest.index).execute();
    // SQLite accepts 32,766 parameters per statement; one chunk is far below.
    await releaseBlobs(
      tx,
      rows.map(({ blob_id }) => blob_id),
      Date.now(),
    );
    return rows.length;
  });
}
