import { randomUUID } from 'node:crypto';
import type { Database, Db, Tx } from '../db/database.ts';
import type { CheckpointTable, IModelTable } from '../db/schema.ts';
import { segmentAt } from '../db/statements/segmentAt.ts';
import { enqueue } from '../operations/jobs.ts';

/** The part of an iModel that tells which checkpoints it sees. */
export type CheckpointView = Pick<IModelTable, 'history_id' | 'head_index' | 'baseline_id'>;

/** iModels and versions that are looked at together at the start of a server. */
const catchUpPage = 500;

/** Job that makes one checkpoint. */
export const checkpointJob = 'checkpoint';

/** Where the latest version of iTwin.js is kept that made checkpoints here. */
const versionName = 'itwinjs-version';

/** Whether one version, such as `5.1.9`, comes after another. */
function isLater(version: string, than: string): boolean {
  const [one, other] = [version, than].map((text) =>
    text.split(/[.-]/).map((part) => Number.parseInt(part, 10) || 0),
  ) as [number[], number[]];
  const differing = one.findIndex((number, n) => number !== (other[n] ?? 0));
  return differing >= 0 && (one[differing] as number) > (other[differing] ?? 0);
}

/** Name of a checkpoint's database in its container. */
export function databaseName(changeset: { index: number; id: string }): string {
  return changeset.index === 0 ? 'BASELINE.bim' : `${changeset.id}.bim`;
}

/** Finds and orders checkpoints. What an iModel sees of its history decides what it sees of these: nothing is copied for a clone. */
export class Checkpoints {
  readonly #database: Database;
  readonly #enabled: boolean;
  readonly #every: number;
  readonly #delayMs: number;

  /**
   * @param options.enabled whether some server of this installation makes checkpoints
   * @param options.every changesets after which the newest one gets a checkpoint
   * @param options.delayMs wait before one is made, so that a flurry of pushes and versions is over
   */
  constructor(database: Database, options: { enabled: boolean; every: number; delayMs: number }) {
    this.#database = database;
    this.#enabled = options.enabled;
    this.#every = options.every;
    this.#delayMs = options.delayMs;
  }

  /** The checkpoint of exactly this changeset (index 0: of the baseline), in whatever state. */
  async find(view: CheckpointView, index: number): Promise<CheckpointTable | undefined> {
    return findCheckpoint(this.#database.db, view, index);
  }

  /** The newest usable checkpoint at or before a changeset. */
  async nearest(view: CheckpointView, index: number): Promise<CheckpointTable | undefined> {
    const { db } = this.#database;
    if (view.history_id === null || index === 0) return ofBaseline(db, view);
    const found = await seen(db, view, Math.min(index, view.head_index))
      .where('c.state', '=', 'successful')
      .orderBy('c.changeset_index', 'desc')
      .limit(1)
      .executeTakeFirst();
    return found ?? ofBaseline(db, view);
  }

  /** Every usable checkpoint that an iModel sees, by index. */
  async usable(view: CheckpointView): Promise<CheckpointTable[]> {
    const { db } = this.#database;
    const baseline = await ofBaseline(db, view);
    const first = baseline === undefined ? [] : [baseline];
    if (view.history_id === null) return first;
    const others = await seen(db, view, view.head_index)
      .where('c.state', '=', 'successful')
      .orderBy('c.changeset_index')
      .execute();
    return [...first, ...others];
  }

  /** Every checkpoint that an iModel sees, in whatever state. */
  async all(view: CheckpointView, db: Db = this.#database.db): Promise<CheckpointTable[]> {
    const ofItsBaseline = await db
      .selectFrom('checkpoint')
      .selectAll()
      .where('baseline_id', '=', view.baseline_id)
      .execute();
    if (view.history_id === null) return ofItsBaseline;
    return [...ofItsBaseline, ...(await seen(db, view, view.head_index).orderBy('c.changeset_index').execute())];
  }

  /** Size of a model file, bytes. */
  async sizeOf(fileId: string): Promise<number> {
    return (
      await this.#database.db.selectFrom('model_file').select('size').where('id', '=', fileId).executeTakeFirstOrThrow()
    ).size;
  }

  /**
   * For changesets `first` to `last`: the index of the usable checkpoint at or before each; 0, the baseline's, where there is
   * no later one.
   */
  async preceding(view: CheckpointView, first: number, last: number): Promise<(index: number) => number> {
    if (view.history_id === null) return () => 0;
    const { db } = this.#database;
    const usable = seen(db, view, last).where('c.state', '=', 'successful');
    const within =
      first === last
        ? []
        : await usable.where('c.changeset_index', '>', first).orderBy('c.changeset_index', 'desc').execute();
    const before = await usable
      .where('c.changeset_index', '<=', first)
      .orderBy('c.changeset_index', 'desc')
      .limit(1)
      .executeTakeFirst();
    const indexes = [...within, ...(before === undefined ? [] : [before])].map(
      ({ changeset_index }) => changeset_index,
    );
    return (index) => indexes.find((candidate) => candidate <= index) ?? 0;
  }

  /** Whether checkpoints, and with them any model files, are made in this installation. */
  get enabled(): boolean {
    return this.#enabled;
  }

  /** Where the checkpoint of a changeset belongs; undefined when there is one, in whatever state. */
  async vacantSlot(view: CheckpointView, index: number, db: Db = this.#database.db): Promise<Place | undefined> {
    const place = await placeAt(db, view, index);
    if (place === undefined) throw new Error(`the iModel sees no changeset ${index}`);
    return (await checkpointAt(db, place)) === undefined ? place : undefined;
  }

  /**
   * Orders a checkpoint unless there is one, in the transaction that gives the reason for it.
   * @param options.userId who gave the reason, on whose account it is made; by default who created the iModel
   * @returns whether it did
   */
  async ensureScheduled(
    tx: Tx,
    imodel: CheckpointView & Pick<IModelTable, 'itwin_id' | 'creator_id'>,
    index: number,
    { when = 'soon', userId = imodel.creator_id }: { when?: 'soon' | 'now'; userId?: string } = {},
  ): Promise<boolean> {
    const place = this.#enabled ? await this.vacantSlot(imodel, index, tx) : undefined;
    if (place === undefined) return false;
    const row: CheckpointTable = {
      id: randomUUID(),
      ...place,
      state: 'scheduled',
      file_id: null,
      applied: 0,
      to_apply: 0,
      failure_reason: null,
      created_at: Date.now(),
      finished_at: null,
    };
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

  /** Orders one for the newest changeset when the last one, made or ordered, is `every` changesets behind. */
  async scheduleTip(tx: Tx, imodel: IModelTable, userId?: string): Promise<void> {
    if (!this.#enabled || this.#every === 0 || imodel.head_index < this.#every) return;
    const last = await seen(tx, imodel, imodel.head_index)
      .orderBy('c.changeset_index', 'desc')
      .limit(1)
      .executeTakeFirst();
    if (imodel.head_index - (last?.changeset_index ?? 0) >= this.#every)
      await this.ensureScheduled(tx, imodel, imodel.head_index, userId === undefined ? {} : { userId });
  }

  /**
   * Orders what was not ordered while nobody made checkpoints: those of baselines and of named versions. For the start of a
   * server, beside its work; several may do so at once. @returns how many it ordered
   */
  async catchUp(signal: AbortSignal): Promise<number> {
    if (!this.#enabled) return 0;
    let ordered = 0;
    const { db } = this.#database;
    for (let after = { imodelId: '', index: -1 }; ;) {
      const versions = db.selectFrom('named_version').select(['imodel_id', 'changeset_index']);
      const baselines = db
        .selectFrom('imodel as m')
        .select((eb) => ['m.id as imodel_id', eb.lit(0).as('changeset_index')])
        .where('m.deleted_at', 'is', null)
        // Said here for the sake of the many iModels and clones that begin with the seed.
        .where((eb) =>
          eb.not(
            eb.exists(eb.selectFrom('checkpoint as c').select('c.id').whereRef('c.baseline_id', '=', 'm.baseline_id')),
          ),
        );
      const page = await db
        .selectFrom(versions.union(baselines).as('w'))
        .selectAll()
        .where((eb) =>
          eb.or([
            eb('w.imodel_id', '>', after.imodelId),
            eb.and([eb('w.imodel_id', '=', after.imodelId), eb('w.changeset_index', '>', after.index)]),
          ]),
        )
        .orderBy('w.imodel_id')
        .orderBy('w.changeset_index')
        .limit(catchUpPage)
        .execute();
      for (const { imodel_id, changeset_index } of page) {
        if (signal.aborted) return ordered;
        if (await this.#order(imodel_id, changeset_index)) ordered++;
      }
      const last = page.at(-1);
      if (last === undefined) return ordered;
      after = { imodelId: last.imodel_id, index: last.changeset_index };
    }
  }

  /**
   * Has every failed checkpoint tried once more when the iTwin.js here is of a later version than any that tried before: it may
   * read what the others could not. For the start of a server, beside its work; several may do so at once.
   * @returns how many are tried again
   */
  async retryFailed(version: string, signal: AbortSignal): Promise<number> {
    const { db } = this.#database;
    const known = await db.selectFrom('secret').select('value').where('name', '=', versionName).executeTakeFirst();
    if (!this.#enabled || (known !== undefined && !isLater(version, known.value))) return 0;
    const failed = await db
      .selectFrom('checkpoint')
      .select(['id', 'baseline_id', 'segment_id', 'changeset_index'])
      .where('state', '=', 'failed')
      .execute();
    let retried = 0;
    for (const row of failed) {
      if (signal.aborted) return retried;
      const seeing = db
        .selectFrom('imodel as m')
        .select(['m.itwin_id', 'm.creator_id'])
        .where('m.deleted_at', 'is', null)
        .where('m.state', '=', 'initialized')
        .limit(1);
      const imodel = await (
        row.baseline_id !== null
          ? seeing.where('m.baseline_id', '=', row.baseline_id)
          : seeing
              .innerJoin('history_segment as h', 'h.history_id', 'm.history_id')
              .where('h.segment_id', '=', row.segment_id)
              .where('m.head_index', '>=', row.changeset_index)
      ).executeTakeFirst();
      if (
        imodel !== undefined &&
        (await db.transaction().execute((tx) => this.#retry(tx, row.id, imodel.itwin_id, imodel.creator_id)))
      )
        retried++;
    }
    // Only now: a server that is ended midway begins again.
    await db
      .insertInto('secret')
      .values({ name: versionName, value: version })
      .onConflict((conflict) => conflict.column('name').doUpdateSet({ value: version }))
      .execute();
    return retried;
  }

  /** @returns whether it was a failed one */
  async #retry(tx: Tx, checkpointId: string, tenant: string, userId: string): Promise<boolean> {
    const again = await tx
      .updateTable('checkpoint')
      .set({ state: 'scheduled', failure_reason: null, finished_at: null, applied: 0 })
      .where('id', '=', checkpointId)
      .where('state', '=', 'failed')
      .executeTakeFirst();
    if (again.numUpdatedRows === 0n) return false;
    await enqueue(tx, { kind: checkpointJob, subjectId: checkpointId, tenant, userId, delayMs: this.#delayMs });
    return true;
  }

  async #order(imodelId: string, index: number): Promise<boolean> {
    const { db } = this.#database;
    const imodel = await db
      .selectFrom('imodel')
      .selectAll()
      .where('id', '=', imodelId)
      .where('deleted_at', 'is', null)
      .where('state', '=', 'initialized')
      .executeTakeFirst();
    if (imodel === undefined || (await findCheckpoint(db, imodel, index)) !== undefined) return false;
    return db.transaction().execute((tx) => this.ensureScheduled(tx, imodel, index));
  }

  /** Makes a failed checkpoint, or one that never was, be made (again); one that is there or on its way stays as it is. */
  async restart(tx: Tx, imodel: IModelTable, index: number, userId: string): Promise<void> {
    const row = await findCheckpoint(tx, imodel, index);
    if (row === undefined) {
      await this.ensureScheduled(tx, imodel, index, { userId });
      return;
    }
    if (row.state !== 'failed' || !this.#enabled) return;
    await this.#retry(tx, row.id, imodel.itwin_id, userId);
  }
}

/** Checkpoints of changesets that an iModel sees, up to an index. */
function seen(db: Db, view: CheckpointView, upTo: number) {
  return db
    .selectFrom('history_segment as h')
    .innerJoin('checkpoint as c', 'c.segment_id', 'h.segment_id')
    .selectAll('c')
    .where('h.history_id', '=', view.history_id)
    .where('h.first_index', '<=', upTo)
    .whereRef('c.changeset_index', '>=', 'h.first_index')
    .whereRef('c.changeset_index', '<=', 'h.last_index')
    .where('c.changeset_index', '<=', upTo);
}

/** The usable checkpoint of the baseline. */
async function ofBaseline(db: Db, view: CheckpointView): Promise<CheckpointTable | undefined> {
  return db
    .selectFrom('checkpoint')
    .selectAll()
    .where('baseline_id', '=', view.baseline_id)
    .where('state', '=', 'successful')
    .executeTakeFirst();
}

/** Where a checkpoint hangs: on a changeset of a segment, or on a baseline. */
type Place = Pick<CheckpointTable, 'baseline_id' | 'segment_id' | 'changeset_index'>;

/** Undefined when the iModel sees no such changeset. */
async function placeAt(db: Db, view: CheckpointView, index: number): Promise<Place | undefined> {
  if (index === 0) return { baseline_id: view.baseline_id, segment_id: null, changeset_index: 0 };
  const segmentId = await segmentAt(db, view, index);
  return segmentId === undefined ? undefined : { baseline_id: null, segment_id: segmentId, changeset_index: index };
}

async function checkpointAt(db: Db, place: Place): Promise<CheckpointTable | undefined> {
  const checkpoints = db.selectFrom('checkpoint').selectAll();
  if (place.baseline_id !== null) return checkpoints.where('baseline_id', '=', place.baseline_id).executeTakeFirst();
  return checkpoints
    .where('segment_id', '=', place.segment_id)
    .where('changeset_index', '=', place.changeset_index)
    .executeTakeFirst();
}

async function findCheckpoint(db: Db, view: CheckpointView, index: number): Promise<CheckpointTable | undefined> {
  const place = await placeAt(db, view, index);
  return place === undefined ? undefined : checkpointAt(db, place);
}
