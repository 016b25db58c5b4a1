import { sql } from 'kysely';
import { audit } from '../access/audit.ts';
import type { IModelAccess } from '../access/permissions.ts';
import {
  checkpointAt,
  checkpointed,
  slotAt,
  type Checkpoints,
  type CheckpointSlot,
  type CheckpointView,
} from '../checkpoints/checkpoints.ts';
import { compiledQuery } from '../db/compiledQuery.ts';
import type { Database, Db } from '../db/database.ts';
import type { GraphicsFileTable, GraphicsTable, IModelTable } from '../db/schema.ts';
import { lastPicture } from '../db/statements/historyRanges.ts';
import { lockInitializedIModel } from '../db/statements/lockIModel.ts';
import type { Caller, ChangesetRef } from '../domain.ts';
import { ApiError } from '../errors.ts';
import { enqueue } from '../operations/jobs.ts';
import { graphicsFormat, type ChunkDetail, type GraphicsSummary } from './drawing.ts';
import { deleteGraphics, ensureScheduled, graphicsAt, graphicsJob } from './rows.ts';

/** A stored file of graphics. */
interface StoredGraphicsFile {
  blobId: string;
  /** Bytes as stored, compressed. */
  size: number;
}

/** Graphics as a caller sees them. */
export interface FoundGraphics {
  row: GraphicsTable | undefined;
  summary: GraphicsSummary | undefined;
  chunks: (StoredGraphicsFile & ChunkDetail)[];
  elements: StoredGraphicsFile | undefined;
}

/** Finds and schedules the graphics of checkpoints. Like checkpoints, all iModels that see a changeset share them. */
export class Graphics {
  readonly #database: Database;
  readonly #checkpoints: Checkpoints;

  constructor(database: Database, checkpoints: Checkpoints) {
    this.#database = database;
    this.#checkpoints = checkpoints;
  }

  /** Whether any server of this installation draws. */
  get enabled(): boolean {
    return this.#checkpoints.graphics.enabled;
  }

  /** Why nothing is drawn, for users. */
  get whyNot(): string {
    return this.#checkpoints.graphics.whyNot;
  }

  /** The graphics of exactly this changeset (index 0 is the baseline), in any state. */
  async find(view: CheckpointView, index: number): Promise<FoundGraphics> {
    const { db } = this.#database;
    const slot = await slotAt(db, view, index);
    const row = slot && (await graphicsAt(db, slot));
    if (row?.state !== 'successful' || row.summary === null)
      return { row, summary: undefined, chunks: [], elements: undefined };
    const files = await db
      .selectFrom('graphics_file as f')
      .innerJoin('blob as b', 'b.id', 'f.blob_id')
      .select(['f.kind', 'f.blob_id', 'f.detail', 'b.size'])
      .where('f.graphics_id', '=', row.id)
      .where('f.kind', 'in', ['chunk', 'elements'])
      .orderBy('f.position')
      .execute();
    const stored = files.map(({ kind, blob_id, detail, size }) => ({ kind, detail, blobId: blob_id, size }));
    return {
      row,
      summary: JSON.parse(row.summary) as GraphicsSummary,
      chunks: stored
        .filter(({ kind }) => kind === 'chunk')
        .map(({ blobId, size, detail }) => ({ blobId, size, ...(JSON.parse(detail ?? '{}') as ChunkDetail) })),
      elements: stored.find(({ kind }) => kind === 'elements'),
    };
  }

  /** The id of the blob with the picture of an iModel at its head, or at the nearest earlier changeset that has one. */
  async picture(view: CheckpointView, size: 'small' | 'large'): Promise<string | undefined> {
    const { db } = this.#database;
    const ofHistory =
      view.history_id === null
        ? undefined
        : await pictureUpTo.first(db, { historyId: view.history_id, upTo: view.head_index, size });
    return (ofHistory ?? (await pictureOfBaseline.first(db, { baselineId: view.baseline_id, size })))?.blob_id;
  }

  /**
   * Schedules graphics that do not exist, have failed, or were drawn in an earlier format, with the checkpoint that they are drawn
   * from if that does not exist. Has no effect on others.
   * @throws ApiError ChangesetNotFound, iModelNotInitialized, GraphicsNotMade
   */
  async request(
    caller: Caller,
    access: IModelAccess,
    ref: ChangesetRef | undefined,
  ): Promise<{ imodel: IModelTable; changeset: { index: number; id: string } }> {
    return this.#database.db.transaction().execute(async (tx) => {
      const imodel = await lockInitializedIModel(tx, this.#database.engine, access.imodel.id, 'clone');
      const changeset = await checkpointed(tx, imodel, ref);
      const slot = (await slotAt(tx, imodel, changeset.index)) as CheckpointSlot;
      const existing = await graphicsAt(tx, slot);
      if (existing?.state === 'scheduled' || isUpToDate(existing)) return { imodel, changeset };
      const checkpoint = await checkpointAt(tx, slot);
      const isOutdated = existing?.state === 'successful';
      // Graphics that cannot be replaced now are kept.
      if (isOutdated && !(this.enabled && checkpoint?.state === 'successful')) return { imodel, changeset };
      if (!this.enabled || (checkpoint?.state !== 'successful' && !this.#checkpoints.enabled))
        throw new ApiError('GraphicsNotMade', { message: this.whyNot });
      if (isOutdated) await deleteGraphics(tx, [existing.id]);
      const id = await ensureScheduled(tx, slot);
      if (id === undefined) return { imodel, changeset };
      // Otherwise the job is enqueued when the checkpoint is made.
      if (checkpoint?.state === 'successful')
        await enqueue(tx, { kind: graphicsJob, subjectId: id, tenant: imodel.itwin_id, userId: caller.user.id });
      else await this.#checkpoints.restart(tx, imodel, changeset.index, caller.user.id);
      await audit(tx, caller, {
        at: Date.now(),
        action: 'graphics.request',
        iTwinId: imodel.itwin_id,
        iModelId: imodel.id,
        detail: { index: changeset.index },
      });
      return { imodel, changeset };
    });
  }
}

/** Whether graphics exist, in the format that this server draws. */
function isUpToDate(row: GraphicsTable | undefined): boolean {
  if (row?.state !== 'successful') return false;
  const { format = 1 } = JSON.parse(row.summary ?? '{}') as Partial<GraphicsSummary>;
  return format >= graphicsFormat;
}

type Size = 'small' | 'large';

const pictureUpTo = compiledQuery((db, { historyId, upTo, size }: { historyId: string; upTo: number; size: Size }) =>
  picturesOf(db, size)
    .innerJoin(lastPicture(historyId, upTo).as('p'), (join) =>
      join.onRef('p.segment_id', '=', 'g.segment_id').onRef('p.changeset_index', '=', 'g.changeset_index'),
    )
    .select('f.blob_id'),
);

const pictureOfBaseline = compiledQuery((db, { baselineId, size }: { baselineId: string; size: Size }) =>
  picturesOf(db, size)
    .select('f.blob_id')
    .where('g.baseline_id', '=', baselineId)
    .where('g.has_picture', '=', sql.lit(1)),
);

function picturesOf(db: Db, size: GraphicsFileTable['kind']) {
  return db
    .selectFrom('graphics as g')
    .innerJoin('graphics_file as f', (join) => join.onRef('f.graphics_id', '=', 'g.id').on('f.kind', '=', size));
}
