import type { Database, Db } from '../db/database.ts';
import { failCreation } from '../imodels/failedCreation.ts';
import type { Stores } from '../storage/stores.ts';
import { completionMs } from '../storage/uploads.ts';
import { abandonPush } from '../changesets/changesets.ts';

/** Rows that one run touches at most. */
const chunk = 1000;

export interface EndUploadsOptions {
  /** How long an upload link lives, and how long an upload may pause that outlasts it, milliseconds. */
  uploadLifeMs: number;
  /** How long a stored file waits to be completed, milliseconds; a day by default. */
  completionLifeMs?: number;
  /** The time from which ages are counted, ms since 1970; one that was set ahead must not make anything old. */
  now?: () => number;
  /** Ends the run between two steps. */
  signal?: AbortSignal | undefined;
}

/**
 * Ends uploads that nobody goes on with: a push gives its turn back, a new iModel's creation fails with the reason. An upload that
 * began in time counts as long as bytes come in, and a file that is stored waits for its completion for a day. So does what
 * clients put straight into a store, where it cannot be seen.
 * @returns how many were ended
 */
export async function endUploads(
  { db }: Database,
  stores: Stores,
  { uploadLifeMs, completionLifeMs = completionMs, now: clock = Date.now, signal }: EndUploadsOptions,
): Promise<number> {
  const now = clock();
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
      eb.selectFrom('baseline').select('blob_id').where('state', '=', 'waitingForFile'),
    );

  let count = 0;
  for (const { id: blob_id } of await pushes(db).limit(chunk).execute()) {
    signal?.throwIfAborted();
    await db.transaction().execute(async (tx) => {
      // Bytes may have come in meanwhile.
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
  await forgetUploads(db, now - Math.max(uploadLifeMs, completionLifeMs));
  return count;
}

/** What was noted of uploads that ended before `before`, and of pushes that lost their turn. */
async function forgetUploads(db: Db, before: number): Promise<void> {
  const old = await db.selectFrom('upload').select('blob_id').where('active_at', '<', before).limit(chunk).execute();
  const waiting = new Set<string>();
  for (const { blob_id } of old) if (await isAwaited(db, blob_id)) waiting.add(blob_id);
  const over = old.map(({ blob_id }) => blob_id).filter((id) => !waiting.has(id));
  if (over.length > 0)
    await db.deleteFrom('upload').where('blob_id', 'in', over).where('active_at', '<', before).execute();
  await db.deleteFrom('abandoned_push').where('abandoned_at', '<', before).execute();
}

/** Whether a push or a baseline still waits for an upload: what came of it so far stays. */
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
