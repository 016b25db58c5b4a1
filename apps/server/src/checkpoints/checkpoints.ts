import { randomUUID } from 'node:crypto';
import { setImmediate, setTimeout as pause } from 'node:timers/promises';
import { sql } from 'kysely';
import { audit } from '../access/audit.ts';
import type { IModelAccess } from '../access/permissions.ts';
import { compiledQuery } from '../db/compiledQuery.ts';
import { isForeignKeyError, type Database, type Db, type Tx } from '../db/database.ts';
import type { CheckpointTable, IModelTable } from '../db/schema.ts';
import { findChangeset } from '../db/statements/findChangeset.ts';
import { lockInitializedIModel } from '../db/statements/lockIModel.ts';
import {
  baselinesWithoutCheckpoint,
  firstPlace,
  versionsWithoutCheckpoint,
  type MissingCheckpoint,
  type Place,
  type PlacesRead,
} from '../db/statements/missingCheckpoints.ts';
import { iModelsWith, lastCheckpoint, rangesOf } from '../db/statements/historyRanges.ts';
import { segmentAt } from '../db/statements/segmentAt.ts';
import type { Caller, ChangesetRef } from '../domain.ts';
import { ApiError } from '../errors.ts';
import type { GraphicsSchedule } from '../graphics/rows.ts';
import { enqueue, enqueueAll } from '../operations/jobs.ts';

/** The part of an iModel that determines which checkpoints it can see. */
export type CheckpointView = Pick<IModelTable, 'history_id' | 'head_index' | 'baseline_id'>;

/** Kind of the job that makes one checkpoint. */
export const checkpointJob = 'checkpoint';

/** Checkpoints that one transaction schedules: 3 ms on SQLite, whose statements run on the main thread. */
const scheduledAtOnce = 25;

/** Name of the `secret` row that stores the latest version of iTwin.js that made checkpoints in this installation. */
const versionSecret = 'itwinjs-version';

/** Whether a version such as `5.1.9` is later than another. */
function isLaterVersion(version: string, than: string): boolean {
  const [one, other] = [version, than].map((text) =>
    text.split(/[.-]/).map((part) => Number.parseInt(part, 10) || 0),
  ) as [number[], number[]];
  const differing = one.findIndex((number, n) => number !== (other[n] ?? 0));
  return differing >= 0 && (one[differing] as number) > (other[differing] ?? 0);
}

/** Name of a checkpoint's database within its container. */
export function databaseName(changeset: { index: number; id: string }): string {
  return changeset.index === 0 ? 'BASELINE.bim' : `${changeset.id}.bim`;
}

/**
 * Finds and schedules checkpoints. The history view of an iModel also determines which checkpoints it can see, so a
 * clone shares those of its source and copies none.
 */
export class Checkpoints {
  readonly #database: Database;
  readonly #enabled: boolean;
  readonly #every: number;
  readonly #delayMs: number;
  /** Graphics are drawn from checkpoints: whatever makes one usable, or gives it up, tells this. */
  readonly graphics: GraphicsSchedule;

  /**
   * @param options.enabled whether any server of this installation makes checkpoints
   * @param options.every number of changesets after which the newest one gets a checkpoint; 0 for never
   * @param options.delayMs delay before a checkpoint is made, so that a burst of pushes and named versions has ended
   */
  constructor(
    database: Database,
    options: { enabled: boolean; every: number; delayMs: number; graphics: GraphicsSchedule },
  ) {
    this.#database = database;
    this.#enabled = options.enabled;
    this.#every = options.every;
    this.#delayMs = options.delayMs;
    this.graphics = options.graphics;
  }

  /** The checkpoint of exactly this changeset (index 0 is the baseline), in any state. */
  async find(view: CheckpointView, index: number): Promise<CheckpointTable | undefined> {
    return findCheckpoint(this.#database.db, view, index);
  }

  /** The newest usable checkpoint at or before a changeset. */
  async nearest(view: CheckpointView, index: number): Promise<CheckpointTable | undefined> {
    const { db } = this.#database;
    if (view.history_id === null || index === 0) return baselineCheckpoint(db, view);
    const upTo = Math.min(index, view.head_index);
    return (await nearestUsable.first(db, { historyId: view.history_id, upTo })) ?? baselineCheckpoint(db, view);
  }

  /** Every usable checkpoint that an iModel can see, ordered by index. */
  async usable(view: CheckpointView): Promise<CheckpointTable[]> {
    const { db } = this.#database;
    const baseline = await baselineCheckpoint(db, view);
    const first = baseline === undefined ? [] : [baseline];
    if (view.history_id === null) return first;
    const others = await visibleCheckpoints(db, { historyId: view.history_id, first: 1, last: view.head_index })
      .where('c.state', '=', 'successful')
      .orderBy('c.changeset_index')
      .execute();
    return [...first, ...others];
  }

  /** Every checkpoint that an iModel can see, in any state. */
  async all(view: CheckpointView, db: Db = this.#database.db): Promise<CheckpointTable[]> {
    const baselineCheckpoints = await db
      .selectFrom('checkpoint')
      .selectAll()
      .where('baseline_id', '=', view.baseline_id)
      .execute();
    if (view.history_id === null) return baselineCheckpoints;
    return [
      ...baselineCheckpoints,
      ...(await visibleCheckpoints(db, { historyId: view.history_id, first: 1, last: view.head_index })
        .orderBy('c.changeset_index')
        .execute()),
    ];
  }

  /** Size of a model file, bytes. */
  async sizeOf(fileId: string): Promise<number> {
    return (
      await this.#database.db.selectFrom('model_file').select('size').where('id', '=', fileId).executeTakeFirstOrThrow()
    ).size;
  }

  /**
   * For each changeset from `first` to `last`, the index of the nearest usable checkpoint at or before it. The function
   * returns 0, the index of the baseline, if there is none.
   */
  async preceding(view: CheckpointView, first: number, last: number): Promise<(index: number) => number> {
    if (view.history_id === null) return () => 0;
    const { db } = this.#database;
    const historyId = view.history_id;
    const within = first === last ? [] : await usableWithin.all(db, { historyId, first: first + 1, last });
    const before = await lastUsable.first(db, { historyId, upTo: first });
    const indexes = [...within, ...(before === undefined ? [] : [before])].map(
      ({ changeset_index }) => changeset_index,
    );
    return (index) => indexes.find((candidate) => candidate <= index) ?? 0;
  }

  /** Whether any server of this installation makes checkpoints and other model files. */
  get enabled(): boolean {
    return this.#enabled;
  }

  /** The slot for the checkpoint of a changeset; undefined if it already has a checkpoint, in any state. */
  async vacantSlot(
    view: CheckpointView,
    index: number,
    db: Db = this.#database.db,
  ): Promise<CheckpointSlot | undefined> {
    const slot = await slotAt(db, view, index);
    if (slot === undefined) throw new Error(`the iModel has no changeset ${index}`);
    return (await checkpointAt(db, slot)) === undefined ? slot : undefined;
  }

  /**
   * Schedules the checkpoint of a changeset unless it exists, in the transaction of the change that needs it.
   * @param options.userId user whose account the job counts on; by default the creator of the iModel
   * @returns whether a checkpoint was scheduled
   */
  async ensureScheduled(
    tx: Tx,
    imodel: CheckpointView & Pick<IModelTable, 'itwin_id' | 'creator_id'>,
    index: number,
    { when = 'soon', userId = imodel.creator_id }: { when?: 'soon' | 'now'; userId?: string } = {},
  ): Promise<boolean> {
    const slot = this.#enabled ? await this.vacantSlot(imodel, index, tx) : undefined;
    if (slot === undefined) return false;
    const row = scheduledAt(slot);
    const inserted = await tx
      .insertInto('checkpoint')
      .values(row)
      .onConflict((conflict) => conflict.doNothing())
      .executeTakeFirst();
    if (inserted.numInsertedOrUpdatedRows === 0n) return false;
    await enqueue(tx, {
      kind: checkpointJob,
      subjectId: row.id,
      tenant: imodel.itwin_id,
      userId,
      delayMs: when === 'now' ? 0 : this.#delayMs,
    });
    return true;
  }

  /**
   * Schedules a checkpoint of the newest changeset if the last one, in any state, is at least `every` changesets
   * behind.
   */
  async scheduleTip(tx: Tx, imodel: IModelTable, userId?: string): Promise<void> {
    if (!this.#enabled || this.#every === 0 || imodel.head_index < this.#every) return;
    const last =
      imodel.history_id === null
        ? undefined
        : await lastOfAll.first(tx, { historyId: imodel.history_id, upTo: imodel.head_index });
    if (imodel.head_index - (last?.changeset_index ?? 0) >= this.#every)
      await this.ensureScheduled(tx, imodel, imodel.head_index, userId === undefined ? {} : { userId });
  }

  /**
   * Schedules the missing checkpoints of baselines and named versions, which were not scheduled while no server made
   * checkpoints. Runs in the background after a server has started; several servers may run it at once.
   * @returns the number of checkpoints that were scheduled
   */
  async catchUp(signal: AbortSignal): Promise<number> {
    if (!this.#enabled) return 0;
    const { db } = this.#database;
    let scheduled = 0;
    for (const read of [versionsWithoutCheckpoint, baselinesWithoutCheckpoint])
      for (let after: Place | undefined = firstPlace; after !== undefined;) {
        const { missing, last }: PlacesRead = await read(db, after);
        // Reads of SQLite do not wait for anything, so without the pauses no request would be answered meanwhile.
        await setImmediate(undefined);
        if (signal.aborted) return scheduled;
        for (let from = 0; from < missing.length; from += scheduledAtOnce) {
          const began = performance.now();
          scheduled += await this.#scheduleAll(missing.slice(from, from + scheduledAtOnce));
          // At most half of the time, because answers wait for the syncs of these transactions.
          await pause(performance.now() - began, undefined, { signal }).catch(() => undefined);
          if (signal.aborted) return scheduled;
        }
        after = last;
      }
    return scheduled;
  }

  /**
   * Schedules every failed checkpoint again if the installed iTwin.js is later than any version that made checkpoints
   * before, because it may read files that the others could not. Runs in the background after a server has started;
   * several servers may run it at once.
   * @returns the number of checkpoints that were scheduled again
   */
  async retryFailed(version: string, signal: AbortSignal): Promise<number> {
    const { db } = this.#database;
    const known = await db.selectFrom('secret').select('value').where('name', '=', versionSecret).executeTakeFirst();
    if (!this.#enabled || (known !== undefined && !isLaterVersion(version, known.value))) return 0;
    const failed = await db
      .selectFrom('checkpoint')
      .select(['id', 'baseline_id', 'segment_id', 'changeset_index'])
      .where('state', '=', 'failed')
      .execute();
    let retried = 0;
    for (const row of failed) {
      await setImmediate(undefined);
      if (signal.aborted) return retried;
      const viewers =
        row.segment_id === null
          ? db.selectFrom('imodel as m').where('m.baseline_id', '=', row.baseline_id).where('m.deleted_at', 'is', null)
          : iModelsWith(db, row.segment_id, row.changeset_index);
      const imodel = await viewers
        .select(['m.itwin_id', 'm.creator_id'])
        .where('m.state', '=', 'initialized')
        .limit(1)
        .executeTakeFirst();
      if (
        imodel !== undefined &&
        (await db.transaction().execute((tx) => this.#retry(tx, row.id, imodel.itwin_id, imodel.creator_id)))
      )
        retried++;
    }
    // Written last, so that a server that is stopped in between starts over.
    await db
      .insertInto('secret')
      .values({ name: versionSecret, value: version })
      .onConflict((conflict) => conflict.column('name').doUpdateSet({ value: version }))
      .execute();
    return retried;
  }

  /** @returns false if the checkpoint is not in state `failed` */
  async #retry(tx: Tx, checkpointId: string, tenant: string, userId: string): Promise<boolean> {
    const updated = await tx
      .updateTable('checkpoint')
      .set({ state: 'scheduled', failure_reason: null, finished_at: null, applied: 0 })
      .where('id', '=', checkpointId)
      .where('state', '=', 'failed')
      .executeTakeFirst();
    if (updated.numUpdatedRows === 0n) return false;
    await enqueue(tx, { kind: checkpointJob, subjectId: checkpointId, tenant, userId, delayMs: this.#delayMs });
    return true;
  }

  /** Schedules missing checkpoints by two statements for all of them. @returns how many were scheduled */
  async #scheduleAll(missing: readonly MissingCheckpoint[]): Promise<number> {
    const { db } = this.#database;
    const rows = new Map<string, { row: CheckpointTable; job: { tenant: string; userId: string } }>();
    for (const imodel of missing) {
      const slot = await slotAt(db, imodel, imodel.index);
      const job = { tenant: imodel.itwin_id, userId: imodel.creator_id };
      if (slot !== undefined) {
        const row = scheduledAt(slot);
        rows.set(row.id, { row, job });
      }
    }
    if (rows.size === 0) return 0;
    try {
      return await db.transaction().execute(async (tx) => {
        // iModels share changesets, so some may name the same one.
        const inserted = await tx
          .insertInto('checkpoint')
          .values([...rows.values()].map(({ row }) => row))
          .onConflict((conflict) => conflict.doNothing())
          .returning('id')
          .execute();
        const jobs = inserted.flatMap(({ id }) => {
          const job = rows.get(id)?.job;
          return job === undefined ? [] : [{ kind: checkpointJob, subjectId: id, ...job, delayMs: this.#delayMs }];
        });
        await enqueueAll(tx, jobs);
        return jobs.length;
      });
    } catch (error) {
      if (!isForeignKeyError(error)) throw error;
      // The changesets of one were deleted in the meantime. The others are scheduled one by one.
      if (missing.length === 1) return 0;
      let scheduled = 0;
      for (const each of missing) scheduled += await this.#scheduleAll([each]);
      return scheduled;
    }
  }

  /**
   * Schedules a checkpoint that failed or was never scheduled; one in any other state is left unchanged.
   * @returns whether it was scheduled
   */
  async restart(tx: Tx, imodel: IModelTable, index: number, userId: string): Promise<boolean> {
    const row = await findCheckpoint(tx, imodel, index);
    if (row === undefined) return this.ensureScheduled(tx, imodel, index, { userId });
    if (row.state !== 'failed' || !this.#enabled) return false;
    return this.#retry(tx, row.id, imodel.itwin_id, userId);
  }

  /**
   * Schedules the checkpoint of any changeset on request, as `restart` does.
   * @param ref index 0 is the baseline
   * @throws ApiError ChangesetNotFound, iModelNotInitialized, CheckpointsNotMade
   */
  async request(
    caller: Caller,
    access: IModelAccess,
    ref: ChangesetRef | undefined,
  ): Promise<{ imodel: IModelTable; changeset: { index: number; id: string } }> {
    return this.#database.db.transaction().execute(async (tx) => {
      // Checkpoints are insert-only and belong to changesets, so a request needs to wait for a deletion only.
      const imodel = await lockInitializedIModel(tx, this.#database.engine, access.imodel.id, 'clone');
      const changeset = await checkpointed(tx, imodel, ref);
      if (!this.#enabled && (await findCheckpoint(tx, imodel, changeset.index))?.state !== 'successful')
        throw new ApiError('CheckpointsNotMade');
      if (await this.restart(tx, imodel, changeset.index, caller.user.id))
        await audit(tx, caller, {
          at: Date.now(),
          action: 'checkpoint.request',
          iTwinId: imodel.itwin_id,
          iModelId: imodel.id,
          detail: { index: changeset.index },
        });
      return { imodel, changeset };
    });
  }
}

/**
 * The changeset that a request names; index 0 is the baseline.
 * @throws ApiError ChangesetNotFound
 */
export async function checkpointed(
  db: Db,
  imodel: IModelTable,
  ref: ChangesetRef | undefined,
): Promise<{ index: number; id: string }> {
  const ofBaseline = ref !== undefined && 'index' in ref && ref.index === 0;
  const found = ofBaseline ? { index: 0, id: '' } : ref && (await findChangeset(db, imodel, ref));
  if (found === undefined) throw new ApiError('ChangesetNotFound');
  return { index: found.index, id: found.id };
}

/** Changesets from one index to another of a history. */
interface Indexes {
  historyId: string;
  first: number;
  last: number;
}

/** Indexes of the usable checkpoints from `first` to `last`, the last one first. */
const usableWithin = compiledQuery((db, indexes: Indexes) =>
  visibleCheckpoints(db, indexes)
    .clearSelect()
    .select('c.changeset_index')
    .where('c.state', '=', sql.lit('successful'))
    .orderBy('c.changeset_index', 'desc'),
);

/** Index of the last usable checkpoint up to an index. */
const lastUsable = compiledQuery((db, { historyId, upTo }: { historyId: string; upTo: number }) =>
  db.selectFrom(lastCheckpoint(historyId, upTo, 'usable').as('u')).select('u.changeset_index'),
);

/** Index of the last checkpoint up to an index, in any state. */
const lastOfAll = compiledQuery((db, { historyId, upTo }: { historyId: string; upTo: number }) =>
  db.selectFrom(lastCheckpoint(historyId, upTo, 'any').as('u')).select('u.changeset_index'),
);

/** The last usable checkpoint up to an index. */
const nearestUsable = compiledQuery((db, { historyId, upTo }: { historyId: string; upTo: number }) =>
  db
    .selectFrom(lastCheckpoint(historyId, upTo, 'usable').as('u'))
    .crossJoin('checkpoint as c')
    .selectAll('c')
    .whereRef('c.segment_id', '=', 'u.segment_id')
    .whereRef('c.changeset_index', '=', 'u.changeset_index'),
);

/** Query for the checkpoints of changesets. */
function visibleCheckpoints(db: Db, { historyId, first, last }: Indexes) {
  return db
    .selectFrom(rangesOf(historyId, first, last).as('h'))
    .crossJoin('checkpoint as c')
    .selectAll('c')
    .whereRef('c.segment_id', '=', 'h.segment_id')
    .whereRef('c.changeset_index', '>=', 'h.first_index')
    .whereRef('c.changeset_index', '<=', 'h.last_index');
}

/** The usable checkpoint of the baseline. */
async function baselineCheckpoint(db: Db, view: CheckpointView): Promise<CheckpointTable | undefined> {
  return db
    .selectFrom('checkpoint')
    .selectAll()
    .where('baseline_id', '=', view.baseline_id)
    .where('state', '=', 'successful')
    .executeTakeFirst();
}

/** The row of a checkpoint that is to be made. */
function scheduledAt(slot: CheckpointSlot): CheckpointTable {
  return {
    id: randomUUID(),
    ...slot,
    state: 'scheduled',
    file_id: null,
    applied: 0,
    to_apply: 0,
    failure_reason: null,
    created_at: Date.now(),
    finished_at: null,
  };
}

/** What a checkpoint is of: a changeset of a segment, or a baseline. */
export type CheckpointSlot = Pick<CheckpointTable, 'baseline_id' | 'segment_id' | 'changeset_index'>;

/** Undefined if the iModel has no such changeset. */
export async function slotAt(db: Db, view: CheckpointView, index: number): Promise<CheckpointSlot | undefined> {
  if (index === 0) return { baseline_id: view.baseline_id, segment_id: null, changeset_index: 0 };
  const segmentId = await segmentAt(db, view, index);
  return segmentId === undefined ? undefined : { baseline_id: null, segment_id: segmentId, changeset_index: index };
}

export async function checkpointAt(db: Db, slot: CheckpointSlot): Promise<CheckpointTable | undefined> {
  const checkpoints = db.selectFrom('checkpoint').selectAll();
  if (slot.baseline_id !== null) return checkpoints.where('baseline_id', '=', slot.baseline_id).executeTakeFirst();
  return checkpoints
    .where('segment_id', '=', slot.segment_id)
    .where('changeset_index', '=', slot.changeset_index)
    .executeTakeFirst();
}

async function findCheckpoint(db: Db, view: CheckpointView, index: number): Promise<CheckpointTable | undefined> {
  const slot = await slotAt(db, view, index);
  return slot === undefined ? undefined : checkpointAt(db, slot);
}
