import { randomUUID } from 'node:crypto';
import type { IModelAccess, ITwinAccess } from '../access/permissions.ts';
import { audit } from '../audit.ts';
import { isForeignKeyError, type Database, type Tx } from '../db/database.ts';
import type { IModelTable } from '../db/schema.ts';
import { findChangeset } from '../db/statements/findChangeset.ts';
import { lockInitializedIModel } from '../db/statements/lockIModel.ts';
import type { Caller, Extent } from '../domain.ts';
import { parseChangesetId } from '../domain.ts';
import { ApiError } from '../errors.ts';
import { insertIModel } from '../imodels/imodelRow.ts';

/** A clone as asked for; absent means "as the source". */
export interface CloneRequest {
  name?: string | undefined;
  description?: string | undefined;
  containersEnabled?: number | undefined;
  /** Last changeset to copy: all when absent; index 0 and id `""` copy the baseline only. */
  upTo?: { index: number } | { id: string } | undefined;
}

/** How often a clone starts over when a history goes away between its reading and its use. */
const attempts = 3;

/**
 * Clones an iModel within one store, in one transaction: the clone is whole, durable and usable when this returns.
 *
 * A clone is a row: the source's baseline, the source's history, and a head where to cut it. No changeset row and no blob
 * is copied, so the cost is the same for 0 and 100,000 changesets and at any depth of history, and nothing of the clone
 * hangs on the source: what both see belongs to neither and stays while one of them is there.
 *
 * Both sides are authorised by the caller of this function. The set of changesets is fixed here: what is pushed to the
 * source later is not part of the clone.
 * @returns the id of the clone
 * @throws ApiError iModelNotFound, iModelNotInitialized, ChangesetNotFound, iModelExists
 */
export async function acceptClone(database: Database, caller: Caller, from: IModelAccess, to: ITwinAccess, request: CloneRequest): Promise<string> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await database.db.transaction().execute((tx) => clone(tx, database, caller, from, to, request));
    } catch (error) {
      // The source moved to a new history and the collector took the old one, all after we read it: read again.
      if (attempt < attempts && isForeignKeyError(error)) continue;
      throw error;
    }
  }
}

async function clone(tx: Tx, database: Database, caller: Caller, from: IModelAccess, to: ITwinAccess, request: CloneRequest): Promise<string> {
  const source = await lockInitializedIModel(tx, database.engine, from.imodel.id, 'clone');
  const sight = await sightUpTo(tx, source, request.upTo);

  const id = randomUUID();
  const now = Date.now();
  await insertIModel(tx, {
    id,
    iTwinId: to.itwin.id,
    name: request.name ?? source.name,
    description: request.description ?? source.description,
    // Rule of the API: the extent is always the source's.
    extent: source.extent === null ? null : (JSON.parse(source.extent) as Extent),
    containersEnabled: request.containersEnabled ?? 0,
    geographicCrs: source.geographic_crs,
    state: 'initialized',
    baselineId: source.baseline_id,
    creatorId: caller.user.id,
    now,
    sight,
  });
  await tx
    .insertInto('operation')
    .values({
      id: randomUUID(),
      imodel_id: id,
      kind: 'clone',
      state: 'successful',
      cloned_from_imodel_id: source.id,
      cloned_from_changeset_id: sight.head_changeset_id,
      changesets: sight.head_index,
      failure_reason: null,
      created_at: now,
      finished_at: now,
    })
    .execute();
  await audit(tx, caller, { at: now, action: 'iModel.clone', iTwinId: to.itwin.id, iModelId: id, detail: { from: source.id, upToIndex: sight.head_index } });
  return id;
}

type Sight = Pick<IModelTable, 'history_id' | 'head_index' | 'head_changeset_id' | 'last_pushed_at'>;

/** The source's history, cut at the last changeset to copy. */
async function sightUpTo(tx: Tx, source: IModelTable, upTo: CloneRequest['upTo']): Promise<Sight> {
  if (upTo === undefined || ('index' in upTo && upTo.index === source.head_index)) {
    const { history_id, head_index, head_changeset_id, last_pushed_at } = source;
    return { history_id, head_index, head_changeset_id, last_pushed_at };
  }
  const baselineOnly = 'index' in upTo ? upTo.index === 0 : upTo.id === '';
  if (baselineOnly) return { history_id: null, head_index: 0, head_changeset_id: '', last_pushed_at: null };
  const id = 'id' in upTo ? parseChangesetId(upTo.id) : undefined;
  const changeset = 'index' in upTo ? await findChangeset(tx, source, upTo) : id === undefined ? undefined : await findChangeset(tx, source, { id });
  if (changeset === undefined) throw new ApiError('ChangesetNotFound');
  return { history_id: source.history_id, head_index: changeset.index, head_changeset_id: changeset.id, last_pushed_at: changeset.pushed_at };
}
