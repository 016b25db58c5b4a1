import { abandonPush } from '../changesets/changesets.ts';
import type { Database } from '../db/database.ts';
import { removeThumbnail } from '../thumbnails/thumbnails.ts';
import { deleteUnusedBaseline } from './baselines.ts';
import { chunk, type CollectorOptions } from './step.ts';

/** Tables whose rows belong to exactly one iModel. */
const ownTables = [
  'abandoned_push',
  'briefcase',
  'object_lock',
  'released_lock',
  'named_version',
  'changeset_group',
  'grouped_changeset',
  'extended_data',
  'share',
  'imodel_grant',
  'imodel_user',
  'push_count',
  'operation',
] as const;

/** Deletes iModels that were created in an iTwin while it was being deleted. */
export async function deleteIModelsOfDeletedITwins({ db }: Database, { signal }: CollectorOptions): Promise<void> {
  for (;;) {
    signal?.throwIfAborted();
    const deleted = await db
      .updateTable('imodel')
      .set({ deleted_at: Date.now(), history_id: null })
      .where('id', 'in', (eb) =>
        eb
          .selectFrom('imodel as m')
          .innerJoin('itwin as t', 't.id', 'm.itwin_id')
          .select('m.id')
          .where('m.deleted_at', 'is', null)
          .where('t.deleted_at', 'is not', null)
          .limit(chunk),
      )
      .executeTakeFirst();
    if (deleted.numUpdatedRows < BigInt(chunk)) return;
  }
}

/** Deletes the rows of deleted iModels and everything that belongs to them alone. @returns how many iModels */
export async function purgeIModels({ db, engine }: Database, { seeds, signal }: CollectorOptions): Promise<number> {
  let purged = 0;
  for (;;) {
    const deleted = await db
      .selectFrom('imodel')
      .select(['id', 'baseline_id'])
      .where('deleted_at', 'is not', null)
      .limit(chunk)
      .execute();
    for (const imodel of deleted) {
      signal?.throwIfAborted();
      await db.transaction().execute(async (tx) => {
        const pending = await tx
          .selectFrom('pending_changeset')
          .selectAll()
          .where('imodel_id', '=', imodel.id)
          .executeTakeFirst();
        if (pending !== undefined) await abandonPush(tx, pending, Date.now());
        await removeThumbnail(tx, imodel.id, Date.now());
        const transfer = await tx
          .deleteFrom('transfer')
          .where('imodel_id', '=', imodel.id)
          .returning(['from_baseline_id', 'baseline_id'])
          .executeTakeFirst();
        await tx.deleteFrom('mark').where('subject_id', '=', imodel.id).execute();
        for (const table of ownTables) await tx.deleteFrom(table).where('imodel_id', '=', imodel.id).execute();
        await tx
          .updateTable('segment')
          .set({ owner_imodel_id: null })
          .where('owner_imodel_id', '=', imodel.id)
          .execute();
        await tx.deleteFrom('imodel').where('id', '=', imodel.id).execute();
        for (const id of new Set([imodel.baseline_id, transfer?.from_baseline_id, transfer?.baseline_id]))
          if (id != null) await deleteUnusedBaseline(tx, engine, id, seeds);
      });
      purged++;
    }
    if (deleted.length < chunk) return purged;
  }
}
