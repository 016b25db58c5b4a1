import { isForeignKeyError, type Database, type Tx } from '../db/database.ts';
import type { BlobStore } from '../storage/blobStore.ts';
import { releaseBlobs } from '../storage/blobs.ts';
import { removeThumbnail } from '../thumbnails/thumbnails.ts';
import { giveUp } from './changesets.ts';

/** Rows that one transaction of the collector touches at most, so that it never keeps others waiting for long. */
const chunk = 1000;
/** Objects that no row knows are kept this long: after a database was restored from a backup they may be all there is. */
const strayAgeMs = 7 * 24 * 3600 * 1000;

/** Tables of what is one iModel's alone. */
const ownTables = [
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
  'operation',
] as const;

/** What one run of the collector took away. */
export interface Collected {
  iModels: number;
  histories: number;
  segments: number;
  changesets: number;
  blobs: number;
  uploads: number;
  strays: number;
}

export interface CollectorOptions {
  /** Least age of a release before the bytes go; longer than any signed link lives. */
  graceMs: number;
  /** How long an upload link lives: what is unfinished for longer never will be finished. */
  uploadLifeMs: number;
  /** The baseline of new iModels stays, whether or not one has it. */
  seedBaselineId: string;
  /** Also walk what no deletion has touched: every orphan, and every object of the store. Wanted now and then only. */
  thorough: boolean;
}

/**
 * Takes away what nothing refers to any more, in small transactions that can each be repeated: rows of deleted iModels,
 * histories that no iModel sees, segments in no history, the changesets of an orphaned segment above every head that
 * looks at it, and at last, after a grace, the bytes. References are the foreign keys themselves; nothing is counted.
 */
export async function collect(database: Database, store: BlobStore, options: CollectorOptions): Promise<Collected> {
  const collected: Collected = { iModels: 0, histories: 0, segments: 0, changesets: 0, blobs: 0, uploads: 0, strays: 0 };
  collected.iModels = await purgeIModels(database, options);
  collected.uploads = await endUploads(database, options);
  if (collected.iModels > 0 || options.thorough) {
    collected.histories = await unlessInUse(() => dropHistories(database));
    collected.changesets = await dropChangesets(database);
    collected.segments = await unlessInUse(() => dropSegments(database));
  }
  collected.blobs = await dropBlobs(database, store, options);
  await store.dropUnfinished(Date.now() - options.uploadLifeMs);
  if (options.thorough) collected.strays = await dropStrays(database, store);
  return collected;
}

/** A row that came into use while it was being deleted stays, by its foreign key; the next thorough run sees to the others. */
async function unlessInUse(drop: () => Promise<number>): Promise<number> {
  try {
    return await drop();
  } catch (error) {
    if (isForeignKeyError(error)) return 0;
    throw error;
  }
}

async function purgeIModels({ db }: Database, options: CollectorOptions): Promise<number> {
  let purged = 0;
  for (;;) {
    const gone = await db.selectFrom('imodel').select(['id', 'baseline_id']).where('deleted_at', 'is not', null).limit(chunk).execute();
    for (const imodel of gone) {
      await db.transaction().execute(async (tx) => {
        const pending = await tx.selectFrom('pending_changeset').selectAll().where('imodel_id', '=', imodel.id).executeTakeFirst();
        if (pending !== undefined) await giveUp(tx, pending, Date.now());
        await removeThumbnail(tx, imodel.id, Date.now());
        await tx.deleteFrom('mark').where('subject_id', '=', imodel.id).execute();
        for (const table of ownTables) await tx.deleteFrom(table).where('imodel_id', '=', imodel.id).execute();
        await tx.updateTable('segment').set({ owner_imodel_id: null }).where('owner_imodel_id', '=', imodel.id).execute();
        await tx.deleteFrom('imodel').where('id', '=', imodel.id).execute();
        if (imodel.baseline_id !== options.seedBaselineId) await dropBaseline(tx, imodel.baseline_id);
      });
      purged++;
    }
    if (gone.length < chunk) return purged;
  }
}

async function dropBaseline(tx: Tx, id: string): Promise<void> {
  const baseline = await tx.selectFrom('baseline').select('blob_id').where('id', '=', id).executeTakeFirst();
  const dropped = await tx
    .deleteFrom('baseline')
    .where('id', '=', id)
    .where((eb) => eb.not(eb.exists(eb.selectFrom('imodel').select('id').where('baseline_id', '=', id))))
    .executeTakeFirst();
  if (dropped.numDeletedRows > 0n && baseline !== undefined) await releaseBlobs(tx, [baseline.blob_id], Date.now());
}

/** Uploads whose link ran out: a push gives its turn back, a new iModel's creation fails with the reason. */
async function endUploads({ db }: Database, options: CollectorOptions): Promise<number> {
  const before = Date.now() - options.uploadLifeMs;
  const pushes = await db.selectFrom('pending_changeset').selectAll().where('created_at', '<', before).where('lease_until', '<', Date.now()).limit(chunk).execute();
  for (const push of pushes) {
    await db.transaction().execute(async (tx) => {
      const still = await tx.selectFrom('pending_changeset').selectAll().where('imodel_id', '=', push.imodel_id).where('blob_id', '=', push.blob_id).executeTakeFirst();
      if (still !== undefined) await giveUp(tx, still, Date.now());
    });
  }
  const baselines = await db.selectFrom('baseline').select('id').where('state', '=', 'waitingForFile').where('created_at', '<', before).limit(chunk).execute();
  for (const { id } of baselines) {
    await db.transaction().execute(async (tx) => {
      const ended = await tx.updateTable('baseline').set({ state: 'initializationFailed' }).where('id', '=', id).where('state', '=', 'waitingForFile').executeTakeFirst();
      if (ended.numUpdatedRows === 0n) return;
      await tx
        .updateTable('operation')
        .set({ state: 'failed', failure_reason: 'The baseline file was not uploaded while its link was good.', finished_at: Date.now() })
        .where('imodel_id', 'in', (eb) => eb.selectFrom('imodel').select('id').where('baseline_id', '=', id))
        .where('state', '=', 'waitingForFile')
        .execute();
    });
  }
  return pushes.length + baselines.length;
}

async function dropHistories({ db }: Database): Promise<number> {
  // An insert of an iModel locks the history that it refers to, so a clone under way either keeps this one or starts over.
  const dropped = await db
    .deleteFrom('history')
    .where((eb) => eb.not(eb.exists(eb.selectFrom('imodel').select('imodel.id').whereRef('imodel.history_id', '=', 'history.id'))))
    .executeTakeFirst();
  return Number(dropped.numDeletedRows);
}

/** Changesets of orphaned segments that no iModel's head reaches; of segments in no history, all of them. */
async function dropChangesets({ db }: Database): Promise<number> {
  const orphans = await db
    .selectFrom('segment')
    .select((eb) => [
      'segment.id',
      eb
        .selectFrom('history_segment as h')
        .innerJoin('imodel as m', 'm.history_id', 'h.history_id')
        .select((inner) =>
          inner.fn.max(inner.case().when('m.head_index', '<', inner.ref('h.last_index')).then(inner.ref('m.head_index')).else(inner.ref('h.last_index')).end()).as('reach'),
        )
        .whereRef('h.segment_id', '=', 'segment.id')
        .whereRef('m.head_index', '>=', 'h.first_index')
        .as('reach'),
    ])
    .where('segment.owner_imodel_id', 'is', null)
    .execute();
  let dropped = 0;
  for (const { id, reach } of orphans) {
    for (;;) {
      const taken = await db.transaction().execute(async (tx) => {
        const rows = await tx
          .selectFrom('changeset')
          .select(['index', 'blob_id'])
          .where('segment_id', '=', id)
          .where('index', '>', reach ?? 0)
          .orderBy('index', 'desc')
          .limit(chunk)
          .execute();
        const lowest = rows.at(-1);
        if (lowest === undefined) return 0;
        await tx.deleteFrom('changeset').where('segment_id', '=', id).where('index', '>=', lowest.index).execute();
        // SQLite takes 32,766 parameters a statement; one chunk is far below.
        await releaseBlobs(tx, rows.map(({ blob_id }) => blob_id), Date.now());
        return rows.length;
      });
      dropped += taken;
      if (taken < chunk) break;
    }
  }
  return dropped;
}

async function dropSegments({ db }: Database): Promise<number> {
  const dropped = await db
    .deleteFrom('segment')
    .where('owner_imodel_id', 'is', null)
    .where((eb) => eb.not(eb.exists(eb.selectFrom('history_segment').select('segment_id').whereRef('segment_id', '=', 'segment.id'))))
    .where((eb) => eb.not(eb.exists(eb.selectFrom('changeset').select('changeset.id').whereRef('changeset.segment_id', '=', 'segment.id'))))
    .executeTakeFirst();
  return Number(dropped.numDeletedRows);
}

async function dropBlobs({ db }: Database, store: BlobStore, { graceMs }: CollectorOptions): Promise<number> {
  let dropped = 0;
  for (;;) {
    const released = await db
      .selectFrom('blob')
      .select(['id', 'key'])
      .where('released_at', 'is not', null)
      .where('released_at', '<=', Date.now() - graceMs)
      .where('store', '=', store.id)
      .limit(chunk)
      .execute();
    for (const { id, key } of released) {
      // The row first: a crash in between leaves a stray object, never a row without its bytes.
      await db.deleteFrom('blob').where('id', '=', id).execute();
      if (key !== null) await store.delete(key);
    }
    dropped += released.length;
    if (released.length < chunk) return dropped;
  }
}

async function dropStrays({ db }: Database, store: BlobStore): Promise<number> {
  const before = Date.now() - strayAgeMs;
  let dropped = 0;
  let batch: string[] = [];
  const check = async (): Promise<void> => {
    if (batch.length === 0) return;
    const known = new Set((await db.selectFrom('blob').select('key').where('key', 'in', batch).execute()).map(({ key }) => key));
    for (const key of batch.filter((candidate) => !known.has(candidate))) {
      await store.delete(key);
      dropped++;
    }
    batch = [];
  };
  for await (const { key, modifiedAt } of store.list()) {
    if (modifiedAt >= before) continue;
    batch.push(key);
    if (batch.length >= chunk) await check();
  }
  await check();
  return dropped;
}
