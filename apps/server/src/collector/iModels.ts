import { setImmediate } from 'node:timers/promises';
import { sql } from 'kysely';
import { abandonPush } from '../changesets/changesets.ts';
import type { Database, Db } from '../db/database.ts';
import { deleteSearchKeys } from '../imodels/searchKeys.ts';
import { removeThumbnail } from '../thumbnails/thumbnails.ts';
import { deleteUnusedBaseline } from './baselines.ts';
import { dropLineage, keepLineage } from './lineage.ts';
import { chunk, type CollectorOptions } from './step.ts';

/** Tables whose rows belong to exactly one iModel, each with a column by whose values its rows are deleted, a few at a time. */
const ownTables = {
  abandoned_push: 'changeset_id',
  briefcase: 'briefcase_id',
  object_lock: 'object_id',
  released_lock: 'object_id',
  named_version: 'id',
  grouped_changeset: 'changeset_index',
  changeset_group: 'id',
  extended_data: 'changeset_index',
  share: 'id',
  imodel_grant: 'holder_id',
  imodel_user: 'user_id',
  push_count: 'user_id',
  operation: 'id',
} as const;

type OwnTable = keyof typeof ownTables;

/** Rows that one statement deletes: about 5 ms on SQLite, whose statements run on the main thread. */
const rowsAtOnce = 500;

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
      .select(['id', 'baseline_id', 'itwin_id', 'search_text', 'search_doc'])
      .where('deleted_at', 'is not', null)
      .limit(chunk)
      .execute();
    for (const imodel of deleted) {
      for (const table of Object.keys(ownTables) as OwnTable[]) await deleteOwnRows(db, table, imodel.id, signal);
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
        // A request that began before the deletion may have added some.
        for (const table of Object.keys(ownTables) as OwnTable[])
          await tx.deleteFrom(table).where('imodel_id', '=', imodel.id).execute();
        await tx
          .updateTable('segment')
          .set({ owner_imodel_id: null })
          .where('owner_imodel_id', '=', imodel.id)
          .execute();
        await deleteSearchKeys(tx, imodel);
        await keepLineage(tx, imodel.id);
        await tx.deleteFrom('imodel').where('id', '=', imodel.id).execute();
        await dropLineage(tx, imodel);
        for (const id of new Set([imodel.baseline_id, transfer?.from_baseline_id, transfer?.baseline_id]))
          if (id != null) await deleteUnusedBaseline(tx, engine, id, seeds);
      });
      purged++;
    }
    if (deleted.length < chunk) return purged;
  }
}

/** Deletes the rows of an iModel from one table in steps. Nobody sees a deleted iModel, so they need no common transaction. */
async function deleteOwnRows(
  db: Db,
  table: OwnTable,
  iModelId: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  const key = sql.ref(ownTables[table]);
  const ofIModel = sql`imodel_id = ${iModelId}`;
  for (;;) {
    signal?.throwIfAborted();
    const { numAffectedRows } = await sql`delete from ${sql.table(table)} where ${ofIModel} and ${key} in (
      select ${key} from ${sql.table(table)} where ${ofIModel} limit ${sql.lit(rowsAtOnce)})`.execute(db);
    if ((numAffectedRows ?? 0n) < BigInt(rowsAtOnce)) return;
    await setImmediate();
  }
}
