import { sql } from 'kysely';
import type { Database, Db } from '../db/database.ts';
import { abandonPush } from '../changesets/changesets.ts';
import { failCreation } from '../imodels/failedCreation.ts';
import { PastFailures } from '../operations/pastFailures.ts';
import type { BlobStore } from '../storage/blobStore.ts';
import type { Stores } from '../storage/stores.ts';
import { completionMs } from '../storage/uploads.ts';
import { chunk, timeOf, type CollectorOptions } from './step.ts';

/** The most bytes a store may hold for one upload, as a multiple of its declared size: a whole file and the blocks of two attempts to write it again. */
const mostUploaded = 3;

/**
 * Ends uploads that were abandoned: a push is abandoned, and the creation of an iModel fails with the reason. An upload that
 * started in time stays open while bytes arrive. A stored file may wait a day for its completion, and so may a file that a
 * client uploads directly to a store, because the server does not see those bytes arrive.
 * @returns how many were ended
 */
export async function endUploads({ db }: Database, stores: Stores, options: CollectorOptions): Promise<number> {
  const { uploadLifeMs, completionLifeMs = completionMs, signal } = options;
  const now = timeOf(options);
  const unseen = stores.all.filter(({ direct }) => direct?.uploads !== undefined).map(({ id }) => id);
  const silent = (on: Db) =>
    on
      .selectFrom('blob as b')
      .leftJoin('upload as u', 'u.blob_id', 'b.id')
      .select(['b.id', 'b.state'])
      .where((eb) => {
        const lastByte = eb.fn.coalesce('u.active_at', 'b.created_at');
        const waits = eb.or([
          eb('b.state', '=', 'stored'),
          ...(unseen.length === 0 ? [] : [eb('b.store', 'in', unseen)]),
        ]);
        return eb.or([
          eb(lastByte, '<', now - Math.max(uploadLifeMs, completionLifeMs)),
          eb.and([eb.not(waits), eb(lastByte, '<', now - uploadLifeMs)]),
        ]);
      });
  const pushes = (on: Db) =>
    silent(on).where('b.id', 'in', (eb) =>
      eb.selectFrom('pending_changeset').select('blob_id').where('lease_until', '<', now),
    );
  const baselines = (on: Db) =>
    silent(on).where('b.id', 'in', (eb) =>
      eb.selectFrom('baseline').select('blob_id').where('state', '=', sql.lit('waitingForFile')),
    );

  let count = 0;
  for (const { id: blob_id } of await pushes(db).limit(chunk).execute()) {
    signal?.throwIfAborted();
    await db.transaction().execute(async (tx) => {
      // Bytes may have arrived since the list was read.
      if ((await pushes(tx).where('b.id', '=', blob_id).executeTakeFirst()) === undefined) return;
      const push = await tx
        .selectFrom('pending_changeset')
        .selectAll()
        .where('blob_id', '=', blob_id)
        .executeTakeFirst();
      if (push === undefined) return;
      await abandonPush(tx, push, now, 'lost');
      count++;
    });
  }
  for (const { id: blob_id } of await baselines(db).limit(chunk).execute()) {
    signal?.throwIfAborted();
    await db.transaction().execute(async (tx) => {
      const still = await baselines(tx).where('b.id', '=', blob_id).executeTakeFirst();
      if (still === undefined) return;
      const baseline = await tx
        .updateTable('baseline')
        .set({ state: 'initializationFailed' })
        .where('blob_id', '=', blob_id)
        .where('state', '=', 'waitingForFile')
        .returning('id')
        .executeTakeFirst();
      if (baseline === undefined) return;
      const reason =
        still.state === 'stored'
          ? 'The baseline file was uploaded, but its upload was not completed within a day.'
          : 'The baseline file was not uploaded before its upload link expired.';
      for (const imodel of await tx.selectFrom('imodel').select('id').where('baseline_id', '=', baseline.id).execute())
        await failCreation(tx, imodel.id, { state: 'failed', reason });
      count++;
    });
  }
  await deleteUploadRecords(db, now - Math.max(uploadLifeMs, completionLifeMs));
  return count;
}

/** Deletes the records of uploads and of abandoned pushes that ended before `before`. */
async function deleteUploadRecords(db: Db, before: number): Promise<void> {
  const old = await db.selectFrom('upload').select('blob_id').where('active_at', '<', before).limit(chunk).execute();
  const waiting = new Set<string>();
  for (const { blob_id } of old) if (await isAwaited(db, blob_id)) waiting.add(blob_id);
  const over = old.map(({ blob_id }) => blob_id).filter((id) => !waiting.has(id));
  if (over.length > 0)
    await db.deleteFrom('upload').where('blob_id', 'in', over).where('active_at', '<', before).execute();
  await db.deleteFrom('abandoned_push').where('abandoned_at', '<', before).execute();
}

/** Whether a push or a baseline still waits for an upload, so that what was uploaded must be kept. */
export async function isAwaited(db: Db, blobId: string): Promise<boolean> {
  const row = await db
    .selectFrom('blob as b')
    .select('b.id')
    .where('b.id', '=', blobId)
    .where((eb) =>
      eb.or([
        eb.exists(eb.selectFrom('pending_changeset as p').select('p.blob_id').whereRef('p.blob_id', '=', 'b.id')),
        eb.exists(
          eb
            .selectFrom('baseline as l')
            .select('l.id')
            .whereRef('l.blob_id', '=', 'b.id')
            .where('l.state', '=', 'waitingForFile'),
        ),
      ]),
    )
    .executeTakeFirst();
  return row !== undefined;
}

/**
 * Deletes uploads to one store that nothing waits for, and those larger than any number of attempts explains: a link that
 * leads to a store directly does not limit how much a client writes there. @returns how many
 */
export async function deleteExcessUploads(
  { db }: Database,
  store: BlobStore,
  { signal }: CollectorOptions,
): Promise<number> {
  const uploads = store.direct?.uploads;
  if (uploads === undefined) return 0;
  let deleted = 0;
  const failures = new PastFailures(signal);
  for await (const { upload, bytes } of uploads.uploaded({ signal }))
    await failures.pass(async () => {
      const blob = await db.selectFrom('blob').select('size').where('id', '=', upload).executeTakeFirst();
      if (blob !== undefined && bytes <= mostUploaded * blob.size && (await isAwaited(db, upload))) return;
      await uploads.drop(upload, { signal });
      deleted++;
    });
  failures.end();
  return deleted;
}
