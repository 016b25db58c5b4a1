import { randomUUID } from 'node:crypto';
import type { IModelAccess, ITwinAccess } from '../access/permissions.ts';
import { audit } from '../access/audit.ts';
import { isForeignKeyError, type Database, type Tx } from '../db/database.ts';
import type { IModelTable, OperationTable } from '../db/schema.ts';
import { findChangeset } from '../db/statements/findChangeset.ts';
import { parseChangesetId, type Caller, type Extent, type IModelState } from '../domain.ts';
import { ApiError } from '../errors.ts';
import { raiseCreated } from '../events/events.ts';
import { insertIModel } from '../imodels/imodelRow.ts';
import { accountOf } from '../quotas/accounts.ts';
import type { Quotas } from '../quotas/quotas.ts';
import type { BlobStore } from '../storage/blobStore.ts';
import type { Stores } from '../storage/stores.ts';

/** A copy as asked for; absent means "as the source". */
export interface CopyRequest {
  name?: string | undefined;
  description?: string | undefined;
  containersEnabled?: number | undefined;
  /** Last changeset to copy: all when absent; index 0 and id `""` copy the baseline only. */
  upTo?: { index: number } | { id: string } | undefined;
}

/** What a copy is accepted with. */
export interface CopyParts {
  database: Database;
  stores: Stores;
  quotas: Quotas;
}

/** What an iModel sees of a history. */
export type HistoryViewColumns = Pick<
  IModelTable,
  'history_id' | 'head_index' | 'head_changeset_id' | 'last_pushed_at'
>;

/** Sees the baseline only. */
export const baselineView: HistoryViewColumns = {
  history_id: null,
  head_index: 0,
  head_changeset_id: '',
  last_pushed_at: null,
};

/** How often a copy starts over when a history goes away between its reading and its use. */
const attempts = 3;

/** One transaction that refers to the history of another iModel. */
export async function withForeignKeyRetry<T>(database: Database, work: (tx: Tx) => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await database.db.transaction().execute(work);
    } catch (error) {
      // The source moved to a new history and the collector took the old one, all after we read it: read again.
      if (attempt < attempts && isForeignKeyError(error)) continue;
      throw error;
    }
  }
}

/** The source's history, cut at the last changeset to copy. @throws ApiError ChangesetNotFound */
export async function viewUpTo(tx: Tx, source: IModelTable, upTo: CopyRequest['upTo']): Promise<HistoryViewColumns> {
  if (upTo === undefined || ('index' in upTo && upTo.index === source.head_index)) {
    const { history_id, head_index, head_changeset_id, last_pushed_at } = source;
    return { history_id, head_index, head_changeset_id, last_pushed_at };
  }
  const baselineOnly = 'index' in upTo ? upTo.index === 0 : upTo.id === '';
  if (baselineOnly) return baselineView;
  const id = 'id' in upTo ? parseChangesetId(upTo.id) : undefined;
  const changeset =
    'index' in upTo
      ? await findChangeset(tx, source, upTo)
      : id === undefined
        ? undefined
        : await findChangeset(tx, source, { id });
  if (changeset === undefined) throw new ApiError('ChangesetNotFound');
  return {
    history_id: source.history_id,
    head_index: changeset.index,
    head_changeset_id: changeset.id,
    last_pushed_at: changeset.pushed_at,
  };
}

/** An iModel made from another one. */
export interface Copy {
  source: IModelTable;
  to: ITwinAccess;
  name: string;
  description: string | null;
  extent: Extent | null;
  containersEnabled: number;
  geographicCrs: string | null;
  view: HistoryViewColumns;
  /** `notInitialized` while a job has something left to do. */
  state: IModelState;
  operation: Pick<OperationTable, 'kind' | 'changesets'> & Partial<OperationTable>;
}

/**
 * Inserts the copy, its create operation and who made it. What it shares with its source adds no bytes; one that is not whole
 * at once may, so there must be room for some.
 * @returns its id
 * @throws ApiError iModelExists; QuotaExceededError
 */
export async function insertCopy(tx: Tx, caller: Caller, quotas: Quotas, copy: Copy): Promise<string> {
  await quotas.requireIModel(tx, copy.to.itwin);
  if (copy.state !== 'initialized') await quotas.requireBytes(tx, accountOf(copy.to.itwin), 0);
  const id = randomUUID();
  const now = Date.now();
  const { source, to, operation, view } = copy;
  await insertIModel(tx, {
    id,
    iTwinId: to.itwin.id,
    name: copy.name,
    description: copy.description,
    extent: copy.extent,
    containersEnabled: copy.containersEnabled,
    geographicCrs: copy.geographicCrs,
    state: copy.state,
    baselineId: source.baseline_id,
    creatorId: caller.user.id,
    now,
    view,
    // Whatever it takes of its source, the ids of elements in it bear the ids of the source's briefcases: none may be given out
    // again. It is the whole counter, also for a copy up to an earlier changeset: briefcases acquired before that may be at work still.
    derived: { nextBriefcaseId: source.next_briefcase_id, inheritedIndex: operation.changesets },
  });
  const done = copy.state === 'initialized';
  await insertOperation(tx, {
    imodel_id: id,
    state: done ? 'successful' : 'scheduled',
    created_at: now,
    finished_at: done ? now : null,
    ...operation,
  });
  if (done) await raiseCreated(tx, { id, itwin_id: to.itwin.id, creator_id: caller.user.id });
  await audit(tx, caller, {
    at: now,
    action: `iModel.${operation.kind}`,
    iTwinId: to.itwin.id,
    iModelId: id,
    detail: { from: source.id, upToIndex: view.head_index },
  });
  return id;
}

/** The store that a copy has to be brought to: of another data center than the source's; undefined when it shares the source's. */
export function remoteStoreFor(stores: Stores, from: IModelAccess, to: ITwinAccess): BlobStore | undefined {
  const target = stores.ofDataCenter(to.itwin.data_center);
  return target === stores.ofDataCenter(from.onITwin.itwin.data_center) ? undefined : target;
}

/** Inserts the create operation of an iModel; what is not named is null. */
export async function insertOperation(
  tx: Tx,
  operation: Pick<OperationTable, 'imodel_id' | 'kind' | 'state' | 'changesets' | 'created_at' | 'finished_at'> &
    Partial<OperationTable>,
): Promise<void> {
  await tx
    .insertInto('operation')
    .values({
      id: randomUUID(),
      cloned_from_imodel_id: null,
      cloned_from_changeset_id: null,
      forked_from_imodel_id: null,
      forked_from_changeset_id: null,
      relationship_id: null,
      failure_reason: null,
      changesets_done: 0,
      bytes: 0,
      bytes_done: 0,
      bytes_under_way: 0,
      ...operation,
    })
    .execute();
}

/** Rule of the API: a clone's and a fork's extent is always the source's. */
export function inheritedProperties(
  source: IModelTable,
  request: CopyRequest,
): Pick<Copy, 'name' | 'description' | 'extent' | 'containersEnabled' | 'geographicCrs'> {
  return {
    name: request.name ?? source.name,
    description: request.description ?? source.description,
    extent: source.extent === null ? null : (JSON.parse(source.extent) as Extent),
    containersEnabled: request.containersEnabled ?? 0,
    geographicCrs: source.geographic_crs,
  };
}
