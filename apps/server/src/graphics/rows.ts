import { randomUUID } from 'node:crypto';
import type { Db, Tx } from '../db/database.ts';
import type { CheckpointTable, GraphicsTable } from '../db/schema.ts';
import { enqueue } from '../operations/jobs.ts';
import { releaseBlobs } from '../storage/blobs.ts';

/** Kind of the job that draws one checkpoint. */
export const graphicsJob = 'graphics';

/** What graphics are of: a changeset of a segment, or a baseline, like a checkpoint. */
type Slot = Pick<CheckpointTable, 'baseline_id' | 'segment_id' | 'changeset_index'>;

/** Whom the work counts for. */
interface Payer {
  /** Id of an iTwin. */
  tenant: string;
  userId: string;
}

/** Graphics that one transaction deletes, with their files: some hundred rows at most. */
const deletedAtOnce = 10;

/** Schedules graphics together with the checkpoints from which they are drawn. */
export class GraphicsSchedule {
  /** Whether any server of this installation draws. */
  readonly enabled: boolean;
  /** Why nothing is drawn, for users. */
  readonly whyNot: string;

  constructor(enabled: boolean, whyNot = 'This installation draws no iModels.') {
    this.enabled = enabled;
    this.whyNot = whyNot;
  }

  /** To be called in each transaction that makes a checkpoint usable. */
  async checkpointMade(tx: Tx, slot: Slot, payer: Payer): Promise<void> {
    if (this.enabled) await schedule(tx, slot, payer);
  }

  /** To be called in each transaction that gives a checkpoint up: graphics that wait for it fail too. */
  async checkpointFailed(tx: Tx, slot: Slot, reason: string): Promise<void> {
    const waiting = await graphicsAt(tx, slot);
    if (waiting?.state === 'scheduled')
      await failGraphics(tx, waiting.id, `The checkpoint could not be made. ${reason}`);
  }
}

/** Schedules graphics that do not exist, have failed, or wait for their checkpoint, which is usable now. */
async function schedule(tx: Tx, slot: Slot, { tenant, userId }: Payer): Promise<void> {
  const id = await ensureScheduled(tx, slot);
  if (id !== undefined) await enqueue(tx, { kind: graphicsJob, subjectId: id, tenant, userId });
}

/**
 * Puts graphics into the state `scheduled`, unless they are drawn already.
 * @returns the id of the row; undefined if they are drawn
 */
export async function ensureScheduled(tx: Tx, slot: Slot): Promise<string | undefined> {
  const id = randomUUID();
  const inserted = await tx
    .insertInto('graphics')
    .values({
      id,
      segment_id: slot.segment_id,
      baseline_id: slot.baseline_id,
      changeset_index: slot.changeset_index,
      state: 'scheduled',
      failure_reason: null,
      summary: null,
      has_picture: 0,
      created_at: Date.now(),
      finished_at: null,
    })
    .onConflict((conflict) => conflict.doNothing())
    .executeTakeFirst();
  if (inserted.numInsertedOrUpdatedRows !== 0n) return id;
  const existing = await graphicsAt(tx, slot);
  if (existing === undefined || existing.state === 'successful') return undefined;
  await tx
    .updateTable('graphics')
    .set({ state: 'scheduled', failure_reason: null, finished_at: null })
    .where('id', '=', existing.id)
    .execute();
  return existing.id;
}

export async function failGraphics(tx: Tx, id: string, reason: string): Promise<void> {
  await tx
    .updateTable('graphics')
    .set({ state: 'failed', failure_reason: reason, finished_at: Date.now() })
    .where('id', '=', id)
    .where('state', '=', 'scheduled')
    .execute();
}

export async function graphicsAt(db: Db, slot: Slot): Promise<GraphicsTable | undefined> {
  const graphics = db.selectFrom('graphics').selectAll();
  if (slot.baseline_id !== null) return graphics.where('baseline_id', '=', slot.baseline_id).executeTakeFirst();
  return graphics
    .where('segment_id', '=', slot.segment_id)
    .where('changeset_index', '=', slot.changeset_index)
    .executeTakeFirst();
}

/** Deletes the graphics of the changesets of a segment above an index, in steps, and releases their files. */
export async function deleteGraphicsAbove(db: Db, segmentId: string, above: number): Promise<void> {
  for (;;) {
    const rows = await db
      .selectFrom('graphics')
      .select('id')
      .where('segment_id', '=', segmentId)
      .where('changeset_index', '>', above)
      .limit(deletedAtOnce)
      .execute();
    if (rows.length === 0) return;
    await db.transaction().execute((tx) =>
      deleteGraphics(
        tx,
        rows.map(({ id }) => id),
      ),
    );
  }
}

/** Deletes the graphics of a baseline and releases their files. */
export async function deleteGraphicsOfBaseline(tx: Tx, baselineId: string): Promise<void> {
  const rows = await tx.selectFrom('graphics').select('id').where('baseline_id', '=', baselineId).execute();
  await deleteGraphics(
    tx,
    rows.map(({ id }) => id),
  );
}

/** Deletes graphics and releases their files. */
export async function deleteGraphics(tx: Tx, ids: readonly string[]): Promise<void> {
  if (ids.length === 0) return;
  const files = await tx.selectFrom('graphics_file').select('blob_id').where('graphics_id', 'in', ids).execute();
  await tx.deleteFrom('graphics_file').where('graphics_id', 'in', ids).execute();
  await tx.deleteFrom('graphics').where('id', 'in', ids).execute();
  await releaseBlobs(tx, [...new Set(files.map(({ blob_id }) => blob_id))], Date.now());
}
