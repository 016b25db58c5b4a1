import type { Database, Tx } from '../db/database.ts';
import { deliverJob } from '../events/events.ts';
import { releaseBlobs } from '../storage/blobs.ts';
import { chunk, type CollectorOptions } from './step.ts';

/** Purges deleted iTwins whose iModels have all been purged. @returns how many */
export async function purgeITwins({ db }: Database, { signal }: CollectorOptions): Promise<number> {
  const deleted = await db
    .selectFrom('itwin as t')
    .select('t.id')
    .where('t.deleted_at', 'is not', null)
    .where((eb) => eb.not(eb.exists(eb.selectFrom('imodel as m').select('m.id').whereRef('m.itwin_id', '=', 't.id'))))
    .limit(chunk)
    .execute();
  for (const { id } of deleted) {
    signal?.throwIfAborted();
    await db.transaction().execute((tx) => purgeITwin(tx, id));
  }
  return deleted.length;
}

/** Deletes an iTwin and everything that belongs to it alone. Its iModels must have been purged. */
async function purgeITwin(tx: Tx, id: string): Promise<void> {
  await tx.deleteFrom('group_member').where('itwin_id', '=', id).execute();
  await tx
    .deleteFrom('group_user')
    .where('group_id', 'in', (eb) => eb.selectFrom('user_group').select('id').where('itwin_id', '=', id))
    .execute();
  await tx
    .deleteFrom('job')
    .where('kind', '=', deliverJob)
    .where('subject_id', 'in', (eb) => eb.selectFrom('webhook').select('id').where('itwin_id', '=', id))
    .execute();
  const images = await tx.selectFrom('itwin_image').selectAll().where('itwin_id', '=', id).execute();
  for (const table of ['user_group', 'member', 'role', 'owner', 'webhook', 'repository', 'itwin_image'] as const)
    await tx.deleteFrom(table).where('itwin_id', '=', id).execute();
  await tx.deleteFrom('mark').where('subject', '=', 'itwin').where('subject_id', '=', id).execute();
  await tx.deleteFrom('itwin').where('id', '=', id).execute();
  await releaseBlobs(
    tx,
    images.flatMap(({ small_blob_id, large_blob_id }) => [small_blob_id, large_blob_id]),
    Date.now(),
  );
}
