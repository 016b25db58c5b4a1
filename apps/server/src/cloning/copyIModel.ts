import { randomUUID } from 'node:crypto';
import type { IModelAccess, ITwinAccess, ITwinOfIModel } from '../access/permissions.ts';
import { audit } from '../access/audit.ts';
import { isForeignKeyError, type Database, type Tx } from '../db/database.ts';
import type { DerivationKind, IModelTable, OperationTable } from '../db/schema.ts';
import { findChangeset } from '../db/statements/findChangeset.ts';
import { parseChangesetId, type Caller, type Extent, type IModelState } from '../domain.ts';
import { ApiError } from '../errors.ts';
import { raiseCreated, type Receivers } from '../events/events.ts';
import { insertOperation } from '../imodels/createOperation.ts';
import { insertIModel, transactionWithNewIModel } from '../imodels/imodelRow.ts';
import { accountOf } from '../quotas/accounts.ts';
import type { Quotas } from '../quotas/quotas.ts';
import type { BlobStore } from '../storage/blobStore.ts';
import type { Stores } from '../storage/stores.ts';

/** Properties that a clone or a fork may set for itself. */
export interface Overrides {
  name?: string | undefined;
  description?: string | undefined;
  containersEnabled?: number | undefined;
}

/** The last changeset to include; index 0 and id `""` include the baseline only. */
export type UpTo = { index: number } | { id: string };

/** Who derives an iModel from which one, and in which iTwin. The API has checked the permissions on both. */
export interface DeriveRequest {
  caller: Caller;
  source: IModelAccess;
  target: ITwinAccess<ITwinOfIModel>;
}

export interface CloneRequest extends DeriveRequest, Overrides {
  /** The last changeset to include: all by default; index 0 and id `""` include the baseline only. */
  upTo?: UpTo | undefined;
}

/** The columns that define the history view of an iModel. */
export type HistoryViewColumns = Pick<
  IModelTable,
  'history_id' | 'head_index' | 'head_changeset_id' | 'last_pushed_at'
>;

/** The history view of an iModel without changesets. */
export const baselineView: HistoryViewColumns = {
  history_id: null,
  head_index: 0,
  head_changeset_id: '',
  last_pushed_at: null,
};

/** How often the transaction runs at most if the history it reads is deleted before it commits. */
const attempts = 3;

/** Runs a transaction that refers to the history of another iModel. */
export async function withForeignKeyRetry<T>(database: Database, work: (tx: Tx) => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await transactionWithNewIModel(database, work);
    } catch (error) {
      // After the transaction read the source, a push moved it to a new history and the collector deleted the old one.
      if (attempt < attempts && isForeignKeyError(error)) continue;
      throw error;
    }
  }
}

/** The source's history view, cut at the last changeset to include. @throws ApiError ChangesetNotFound */
export async function viewUpTo(tx: Tx, source: IModelTable, upTo: UpTo | undefined): Promise<HistoryViewColumns> {
  // Clone rule: changesets are included up to the chosen one, all by default.
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

/** An iModel to be derived from another one. */
export interface DerivedIModel {
  source: IModelTable;
  target: ITwinAccess<ITwinOfIModel>;
  name: string;
  description: string | null;
  extent: Extent | null;
  containersEnabled: number;
  geographicCrs: string | null;
  view: HistoryViewColumns;
  /** `notInitialized` if a job has to complete it. */
  state: IModelState;
  operation: Pick<OperationTable, 'changesets'> & Partial<OperationTable> & { kind: DerivationKind };
  /** Of the target's events, read beforehand. */
  receivers: Promise<Receivers>;
}

/**
 * Inserts the iModel, its create operation and the audit entry. What it shares with its source adds no bytes. If a job has
 * to complete it, it may add some, so the account must not be full already.
 * @returns its id
 * @throws ApiError iModelExists; QuotaExceededError
 */
export async function insertDerivedIModel(
  tx: Tx,
  caller: Caller,
  quotas: Quotas,
  imodel: DerivedIModel,
): Promise<string> {
  const { source, target, operation, view } = imodel;
  await quotas.requireIModel(tx, target.itwin);
  if (imodel.state !== 'initialized') await quotas.requireBytes(tx, accountOf(target.itwin), 0);
  const id = randomUUID();
  const now = Date.now();
  // Clone rule: nothing else of the source is copied.
  // These rows are all of the new iModel; every other table that belongs to an iModel has none for it.
  await insertIModel(tx, {
    id,
    iTwinId: target.itwin.id,
    name: imodel.name,
    description: imodel.description,
    extent: imodel.extent,
    containersEnabled: imodel.containersEnabled,
    geographicCrs: imodel.geographicCrs,
    state: imodel.state,
    // Clone rule: the baseline is always included.
    baselineId: source.baseline_id,
    creatorId: caller.user.id,
    now,
    view,
    // Element ids contain the ids of the source's briefcases, so none of those may be issued again. The whole counter is
    // taken over even if the new iModel ends at an earlier changeset: briefcases acquired before it may still be in use.
    derived: {
      nextBriefcaseId: source.next_briefcase_id,
      inheritedIndex: operation.changesets,
      ...lineage(source, operation.kind, view),
    },
  });
  const done = imodel.state === 'initialized';
  await insertOperation(tx, {
    imodel_id: id,
    state: done ? 'successful' : 'scheduled',
    created_at: now,
    finished_at: done ? now : null,
    ...operation,
  });
  if (done) await raiseCreated(tx, { id, itwin_id: target.itwin.id, creator_id: caller.user.id }, imodel.receivers);
  await audit(tx, caller, {
    at: now,
    action: `iModel.${operation.kind}`,
    iTwinId: target.itwin.id,
    iModelId: id,
    detail: { from: source.id, upToIndex: view.head_index },
  });
  return id;
}

/** What a derived iModel keeps of where it came from. The source may be deleted later, so this does not refer to its row. */
function lineage(
  source: IModelTable,
  kind: DerivedIModel['operation']['kind'],
  view: HistoryViewColumns,
): Pick<IModelTable, 'lineage_id' | 'source_id' | 'source_kind' | 'source_index' | 'source_changeset_id'> {
  return {
    lineage_id: source.lineage_id ?? source.id,
    source_id: source.id,
    source_kind: kind,
    source_index: view.head_index,
    source_changeset_id: view.head_changeset_id,
  };
}

/** The store that the files must be transferred to; undefined if source and target are in the same data center. */
export function remoteStoreFor(
  stores: Stores,
  source: IModelAccess,
  target: ITwinAccess<ITwinOfIModel>,
): BlobStore | undefined {
  const store = stores.ofDataCenter(target.itwin.data_center);
  return store === stores.ofDataCenter(source.onITwin.itwin.data_center) ? undefined : store;
}

/** The properties of a clone or a fork. Neither has an extent of its own. */
export function inheritedProperties(
  source: IModelTable,
  overrides: Overrides,
): Pick<DerivedIModel, 'name' | 'description' | 'extent' | 'containersEnabled' | 'geographicCrs'> {
  return {
    // Clone rule: name and description default to the source's.
    name: overrides.name ?? source.name,
    description: overrides.description ?? source.description,
    // Clone rule: the extent is the source's.
    extent: source.extent === null ? null : (JSON.parse(source.extent) as Extent),
    containersEnabled: overrides.containersEnabled ?? 0,
    geographicCrs: source.geographic_crs,
  };
}
