import { isForeignKeyError, type Database, type Tx } from '../db/database.ts';
import type { Engine } from '../db/engine.ts';
import type { BlobStore } from '../storage/blobStore.ts';
import type { Stores } from '../storage/stores.ts';
import { releaseBlobs } from '../storage/blobs.ts';
import { removeThumbnail } from '../thumbnails/thumbnails.ts';
import { forgetFile } from '../checkpoints/modelFiles.ts';
import { purgeITwin } from './purgeITwin.ts';
import { PastFailures } from '../operations/pastFailures.ts';
import { dropExpiredRequests } from '../idempotency/repeatableRequests.ts';
import type { Seeds } from '../baselines/baselines.ts';
import { deleteOrphans, orphanIds } from './orphans.ts';
import { abandonPush } from '../changesets/changesets.ts';
import { endUploads, isAwaited, type EndUploadsOptions } from './endUploads.ts';

/** Rows that one transaction of the collector touches at most, so that it never keeps others waiting for long. */
const chunk = 1000;
/** Objects that no row knows are kept this long: after a database was restored from a backup they may be all there is. */
const orphanAgeMs = 7 * 24 * 3600 * 1000;

/** What may lie in a store for one upload, as a multiple of its declared size: a whole file, and the blocks of two attempts to write it anew. */
const uploadedMost = 3;

/** Tables of what is one iModel's alone. */
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
  'operation',
] as const;

/** What one run of the collector took away. */
export interface Collected {
  iModels: number;
  iTwins: number;
  histories: number;
  segments: number;
  changesets: number;
  blobs: number;
  uploads: number;
  /** Changeset groups closed because nothing joined them any more. */
  groups: number;
  /** Answers kept for repetitions whose time was over. */
  requests: number;
  checkpoints: number;
  modelFiles: number;
  blocks: number;
  /** Rows that nothing referred to any more, found by a thorough run: what went wrong elsewhere left them. */
  orphans: number;
  orphanObjects: number;
}

export interface CollectorOptions extends EndUploadsOptions {
  /** Least age of a release before the bytes go; longer than any signed link lives. */
  graceMs: number;
  /** How long a changeset group stays open without a changeset. */
  groupLifeMs: number;
  /** The baselines of new iModels stay, whether or not one has them. */
  seeds: Seeds;
  /** Also walk what no deletion has touched: every orphan, and every object of the store. Wanted now and then only. */
  thorough: boolean;
}

/**
 * Takes away what nothing refers to any more, in small transactions that can each be repeated: rows of deleted iModels,
 * histories that no iModel sees, segments in no history, the changesets of an orphaned segment above every head that
 * looks at it, and at last, after a grace, the bytes. References are the foreign keys themselves; nothing is counted.
 */
export async function collect(database: Database, stores: Stores, options: CollectorOptions): Promise<Collected> {
  const collected: Collected = {
    iModels: 0,
    iTwins: 0,
    histories: 0,
    segments: 0,
    changesets: 0,
    blobs: 0,
    uploads: 0,
    groups: 0,
    requests: 0,
    checkpoints: 0,
    modelFiles: 0,
    blocks: 0,
    orphans: 0,
    orphanObjects: 0,
  };
  await endIModelsOfITwins(database, options);
  collected.iModels = await purgeIModels(database, options);
  collected.iTwins = await purgeITwins(database, options);
  collected.uploads = await endUploads(database, stores, options);
  collected.groups = await endGroups(database, options);
  for (let dropped = chunk; dropped === chunk; collected.requests += dropped) {
    options.signal?.throwIfAborted();
    dropped = await dropExpiredRequests(database, chunk);
  }
  if (collected.iModels > 0 || options.thorough) {
    if (options.thorough) collected.orphans += await dropOrphans(database, options);
    collected.histories = await dropChunks(database, 'history', options);
    await dropChangesets(database, collected, options);
    collected.segments = await dropChunks(database, 'segment', options);
    collected.modelFiles = await dropModelFiles(database, options);
    collected.blocks = await dropBlocks(database, options);
    if (options.thorough) collected.orphans += await releaseOrphans(database, options);
  }
  // One store that cannot be reached, or one object that cannot be removed, keeps nothing else from being taken away.
  const failures = new PastFailures(options.signal);
  for (const store of stores.all) {
    await failures.pass(() => dropBlobs(database, store, options, collected));
    await failures.pass(() => dropOversized(database, store, options, collected));
    await failures.pass(() =>
      store.dropUnfinished(timeOf(options) - options.uploadLifeMs, {
        signal: options.signal,
        isAwaited: (upload) => isAwaited(database.db, upload),
      }),
    );
    if (options.thorough) await failures.pass(() => dropOrphanObjects(database, store, options, collected));
  }
  failures.end();
  return collected;
}

const timeOf = ({ now = Date.now }: CollectorOptions): number => now();

/** A row that came into use while it was being deleted stays, by its foreign key; the next thorough run sees to the others. */
async function unlessInUse(drop: () => Promise<number>): Promise<number> {
  try {
    return await drop();
  } catch (error) {
    if (isForeignKeyError(error)) return 0;
    throw error;
  }
}

/** What came into a deleted iTwin in the very moment of its deletion goes with it. */
async function endIModelsOfITwins({ db }: Database, { signal }: CollectorOptions): Promise<void> {
  for (;;) {
    signal?.throwIfAborted();
    const ended = await db
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
    if (ended.numUpdatedRows < BigInt(chunk)) return;
  }
}

/** Orphans that a row of the same run may follow: what hangs on nothing, and baselines of no iModel. */
async function dropOrphans({ db, engine }: Database, options: CollectorOptions): Promise<number> {
  const { seeds, uploadLifeMs, signal } = options;
  const before = timeOf(options) - uploadLifeMs;
  let dropped = await deleteOrphans(db, before, signal);
  for (const id of await orphanIds(db, 'baseline', before, chunk)) {
    signal?.throwIfAborted();
    await unlessInUse(() =>
      db
        .transaction()
        .execute(async (tx) => dropBaseline(tx, engine, id, seeds))
        .then(() => 1),
    );
    dropped++;
  }
  return dropped;
}

/** Blobs that nothing names, though nobody released them. */
async function releaseOrphans({ db }: Database, options: CollectorOptions): Promise<number> {
  const { uploadLifeMs, signal } = options;
  let released = 0;
  for (;;) {
    signal?.throwIfAborted();
    const ids = await orphanIds(db, 'blob', timeOf(options) - uploadLifeMs, chunk);
    await db.transaction().execute((tx) => releaseBlobs(tx, ids, Date.now()));
    released += ids.length;
    if (ids.length < chunk) return released;
  }
}

/** Histories and segments that nothing names, some at a time. */
async function dropChunks(
  { db }: Database,
  table: 'history' | 'segment',
  { signal }: CollectorOptions,
): Promise<number> {
  let dropped = 0;
  for (;;) {
    signal?.throwIfAborted();
    const ids = await orphanIds(db, table, Date.now() + 1, chunk);
    if (ids.length === 0) return dropped;
    // An insert that refers to one in this moment locks it first, so one of the two fails by its foreign key.
    const gone = await unlessInUse(async () =>
      Number((await db.deleteFrom(table).where('id', 'in', ids).executeTakeFirst()).numDeletedRows),
    );
    dropped += gone;
    if (gone < ids.length || ids.length < chunk) return dropped;
  }
}

/** Rows of deleted iTwins that hold no iModels any more. */
async function purgeITwins({ db }: Database, { signal }: CollectorOptions): Promise<number> {
  const gone = await db
    .selectFrom('itwin as t')
    .select('t.id')
    .where('t.deleted_at', 'is not', null)
    .where((eb) => eb.not(eb.exists(eb.selectFrom('imodel as m').select('m.id').whereRef('m.itwin_id', '=', 't.id'))))
    .limit(chunk)
    .execute();
  for (const { id } of gone) {
    signal?.throwIfAborted();
    await db.transaction().execute((tx) => purgeITwin(tx, id));
  }
  return gone.length;
}

async function purgeIModels({ db, engine }: Database, { seeds, signal }: CollectorOptions): Promise<number> {
  let purged = 0;
  for (;;) {
    const gone = await db
      .selectFrom('imodel')
      .select(['id', 'baseline_id'])
      .where('deleted_at', 'is not', null)
      .limit(chunk)
      .execute();
    for (const imodel of gone) {
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
          if (id != null) await dropBaseline(tx, engine, id, seeds);
      });
      purged++;
    }
    if (gone.length < chunk) return purged;
  }
}

/** Takes a baseline away that no iModel has any more, and no transfer copies; the seeds stay. */
export async function dropBaseline(tx: Tx, engine: Engine, id: string, seeds: Seeds): Promise<void> {
  if ([...seeds.values()].includes(id)) return;
  // Locked first: a transfer that comes to refer to it in this moment is seen below, or else finds it gone.
  const found = tx.selectFrom('baseline').select('blob_id').where('id', '=', id);
  const baseline = await (engine === 'postgres' ? found.forUpdate() : found).executeTakeFirst();
  const inUse =
    (await tx.selectFrom('imodel').select('id').where('baseline_id', '=', id).limit(1).executeTakeFirst()) ??
    (await tx
      .selectFrom('transfer')
      .select('imodel_id')
      .where((eb) => eb.or([eb('baseline_id', '=', id), eb('from_baseline_id', '=', id)]))
      .limit(1)
      .executeTakeFirst());
  if (baseline === undefined || inUse !== undefined) return;
  await tx.deleteFrom('checkpoint').where('baseline_id', '=', id).execute();
  await tx.deleteFrom('baseline').where('id', '=', id).execute();
  await releaseBlobs(tx, [baseline.blob_id], Date.now());
}

/** Rule of the API: a group that nobody completes is closed as `timedOut` in the end. */
async function endGroups({ db }: Database, options: CollectorOptions): Promise<number> {
  const ended = await db
    .updateTable('changeset_group')
    .set({ state: 'timedOut' })
    .where('state', '=', 'inProgress')
    .where((eb) => eb(eb.fn.coalesce('touched_at', 'created_at'), '<', timeOf(options) - options.groupLifeMs))
    .executeTakeFirst();
  return Number(ended.numUpdatedRows);
}

/** Changesets of orphaned segments that no iModel's head reaches, and their checkpoints; of segments in no history, all of them. */
async function dropChangesets({ db }: Database, collected: Collected, { signal }: CollectorOptions): Promise<void> {
  const orphans = await db
    .selectFrom('segment')
    .select((eb) => [
      'segment.id',
      eb
        .selectFrom('history_segment as h')
        .innerJoin(
          // What copies from a history sees it too.
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
  for (const { id, reach } of orphans) {
    signal?.throwIfAborted();
    const checkpoints = await db
      .deleteFrom('checkpoint')
      .where('segment_id', '=', id)
      .where('changeset_index', '>', reach ?? 0)
      .executeTakeFirst();
    collected.checkpoints += Number(checkpoints.numDeletedRows);
    for (;;) {
      signal?.throwIfAborted();
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
        await releaseBlobs(
          tx,
          rows.map(({ blob_id }) => blob_id),
          Date.now(),
        );
        return rows.length;
      });
      collected.changesets += taken;
      if (taken < chunk) break;
    }
  }
}

/** Model files of no checkpoint. */
async function dropModelFiles({ db }: Database, { signal }: CollectorOptions): Promise<number> {
  let dropped = 0;
  for (;;) {
    signal?.throwIfAborted();
    const files = await db
      .selectFrom('model_file as f')
      .select('f.id')
      .where((eb) =>
        eb.not(eb.exists(eb.selectFrom('checkpoint as c').select('c.id').whereRef('c.file_id', '=', 'f.id'))),
      )
      .limit(chunk)
      .execute();
    for (const { id } of files) await db.transaction().execute((tx) => forgetFile(tx, id));
    dropped += files.length;
    if (files.length < chunk) return dropped;
  }
}

/** Blocks of no file, those left out that a job may be about to name. */
async function dropBlocks({ db }: Database, options: CollectorOptions): Promise<number> {
  const { uploadLifeMs, signal } = options;
  let dropped = 0;
  for (;;) {
    const blocks = await db
      .selectFrom('block as k')
      .innerJoin('blob as b', 'b.id', 'k.blob_id')
      .select(['k.id', 'k.blob_id'])
      .where('b.created_at', '<', timeOf(options) - uploadLifeMs)
      .where((eb) =>
        eb.not(
          eb.exists(eb.selectFrom('model_file_block as f').select('f.file_id').whereRef('f.block_id', '=', 'k.id')),
        ),
      )
      .limit(chunk)
      .execute();
    for (const { id, blob_id } of blocks) {
      signal?.throwIfAborted();
      // A job that names the block in this instant keeps it, by its foreign key.
      dropped += await unlessInUse(() =>
        db.transaction().execute(async (tx) => {
          const gone = await tx.deleteFrom('block').where('id', '=', id).executeTakeFirst();
          await releaseBlobs(tx, [blob_id], Date.now());
          return Number(gone.numDeletedRows);
        }),
      );
    }
    if (blocks.length < chunk) return dropped;
  }
}

async function dropBlobs(
  { db }: Database,
  store: BlobStore,
  options: CollectorOptions,
  collected: Collected,
): Promise<void> {
  const { graceMs, signal } = options;
  const failures = new PastFailures(signal);
  for (;;) {
    const released = await db
      .selectFrom('blob')
      .select(['id', 'key'])
      .where('released_at', 'is not', null)
      .where('released_at', '<=', timeOf(options) - graceMs)
      .where('store', '=', store.id)
      .limit(chunk)
      .execute();
    for (const { id, key } of released) {
      signal?.throwIfAborted();
      // The row first: a crash in between, or an object that cannot be removed, leaves a stray object, never a row without its bytes.
      const gone = await unlessInUse(async () =>
        Number((await db.deleteFrom('blob').where('id', '=', id).executeTakeFirst()).numDeletedRows),
      );
      if (gone === 0) await db.updateTable('blob').set({ released_at: null }).where('id', '=', id).execute();
      else if (key !== null) await failures.pass(() => store.delete(key, { signal }));
    }
    collected.blobs += released.length;
    if (released.length < chunk) return failures.end();
  }
}

/** Links to a store itself do not bound what is put there: what is larger than any repeated attempt makes it goes at once, and so does what nothing waits for. */
async function dropOversized(
  { db }: Database,
  store: BlobStore,
  { signal }: CollectorOptions,
  collected: Collected,
): Promise<void> {
  const uploads = store.direct?.uploads;
  if (uploads === undefined) return;
  const failures = new PastFailures(signal);
  for await (const { upload, bytes } of uploads.uploaded({ signal }))
    await failures.pass(async () => {
      const blob = await db.selectFrom('blob').select('size').where('id', '=', upload).executeTakeFirst();
      if (blob !== undefined && bytes <= uploadedMost * blob.size && (await isAwaited(db, upload))) return;
      await uploads.drop(upload, { signal });
      collected.uploads++;
    });
  failures.end();
}

async function dropOrphanObjects(
  { db }: Database,
  store: BlobStore,
  options: CollectorOptions,
  collected: Collected,
): Promise<void> {
  const { signal } = options;
  const before = timeOf(options) - orphanAgeMs;
  const failures = new PastFailures(signal);
  let batch: string[] = [];
  const check = async (): Promise<void> => {
    if (batch.length === 0) return;
    const known = new Set(
      (await db.selectFrom('blob').select('key').where('key', 'in', batch).execute()).map(({ key }) => key),
    );
    for (const key of batch.filter((candidate) => !known.has(candidate)))
      await failures.pass(async () => {
        await store.delete(key, { signal });
        collected.orphanObjects++;
      });
    batch = [];
  };
  for await (const { key, modifiedAt } of store.list({ signal })) {
    if (modifiedAt >= before) continue;
    batch.push(key);
    if (batch.length >= chunk) await check();
  }
  await check();
  failures.end();
}
