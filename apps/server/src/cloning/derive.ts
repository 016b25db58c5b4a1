import { randomUUID } from 'node:crypto';
import type { IModelAccess, ITwinAccess } from '../access/permissions.ts';
import type { Tx } from '../db/database.ts';
import { lockInitializedIModel } from '../db/statements/lockIModel.ts';
import type { Caller } from '../domain.ts';
import { enqueue } from '../operations/jobs.ts';
import type { Quotas } from '../quotas/quotas.ts';
import type { BlobStore } from '../storage/blobStore.ts';
import { beginTransfer, type TransferOrder } from '../transfer/begin.ts';
import {
  baselineView,
  inheritedProperties,
  insertCopy,
  withForeignKeyRetry,
  viewUpTo,
  remoteStoreFor,
  type Copy,
  type CopyParts,
  type CopyRequest,
} from './copyIModel.ts';

/** Job that makes the file a fork or a templated iModel starts from, or looks through it. */
export const deriveJob = 'derive';

/** What such a job has to do. */
export interface DeriveWork {
  /** The changesets become part of a new baseline. */
  squash: boolean;
  /** Every element must have a FederationGuid. */
  wantsGuids: boolean;
  /** For what follows where the new iModel belongs to another data center. */
  order: TransferOrder;
}

/** Thrown when a new baseline would have to be made, and no server of this installation has iTwin.js. */
export class CannotSquashError extends Error {
  constructor() {
    super('no server of this installation can apply changesets: iTwin.js is not installed');
    this.name = 'CannotSquashError';
  }
}

export interface ForkRequest extends CopyRequest {
  preserveHistory: boolean;
}

/**
 * Forks an iModel: like a clone, and it says what it was forked from. Without history its changesets are put into a new
 * baseline by a job. Rule of the API: a fork ends in a state of its own when an element has no FederationGuid, by which
 * it would later be merged; only a job can tell, so where none can run, a fork with history is not looked through.
 * @returns the id of the fork
 * @throws ApiError iModelNotFound, iModelNotInitialized, ChangesetNotFound, iModelExists; CannotSquashError, QuotaExceededError
 */
export async function acceptFork(
  { database, stores, quotas }: CopyParts,
  canWork: boolean,
  caller: Caller,
  from: IModelAccess,
  to: ITwinAccess,
  request: ForkRequest,
): Promise<string> {
  return withForeignKeyRetry(database, async (tx) => {
    const source = await lockInitializedIModel(tx, database.engine, from.imodel.id, 'clone');
    const view = await viewUpTo(tx, source, request.upTo);
    const squash = !request.preserveHistory && view.head_index > 0;
    const forked = {
      forked_from_imodel_id: source.id,
      forked_from_changeset_id: view.head_changeset_id,
      relationship_id: randomUUID(),
    };
    return derive(
      tx,
      quotas,
      remoteStoreFor(stores, from, to),
      canWork,
      caller,
      {
        source,
        to,
        ...inheritedProperties(source, request),
        view,
        operation: { kind: 'fork', changesets: squash ? 0 : view.head_index, ...forked },
      },
      { squash, wantsGuids: true },
    );
  });
}

/** A new iModel as it is asked for with a template. */
export type TemplateRequest = Pick<Copy, 'name' | 'description' | 'extent' | 'containersEnabled' | 'geographicCrs'> & {
  /** Null: the template's baseline. */
  changesetId: string | null;
};

/**
 * Creates an iModel from a template: from its baseline at once, or from its state at a changeset, which a job puts into a new
 * baseline. Rule of the API: neither description nor extent are the template's.
 * @returns the id of the iModel
 * @throws ApiError iModelNotFound, iModelNotInitialized, ChangesetNotFound, iModelExists; CannotSquashError, QuotaExceededError
 */
export async function acceptTemplate(
  { database, stores, quotas }: CopyParts,
  canWork: boolean,
  caller: Caller,
  template: IModelAccess,
  to: ITwinAccess,
  request: TemplateRequest,
): Promise<string> {
  return withForeignKeyRetry(database, async (tx) => {
    const source = await lockInitializedIModel(tx, database.engine, template.imodel.id, 'clone');
    const { changesetId, ...own } = request;
    const view = await viewUpTo(tx, source, { id: changesetId ?? '' });
    return derive(
      tx,
      quotas,
      remoteStoreFor(stores, template, to),
      canWork,
      caller,
      { source, to, ...own, view, operation: { kind: 'template', changesets: 0 } },
      { squash: view.head_index > 0, wantsGuids: false },
    );
  });
}

async function derive(
  tx: Tx,
  quotas: Quotas,
  remoteStore: BlobStore | undefined,
  canWork: boolean,
  caller: Caller,
  copy: Omit<Copy, 'state'>,
  wanted: Omit<DeriveWork, 'order'>,
): Promise<string> {
  const work: DeriveWork = { ...wanted, order: { caller, fromIModelId: copy.source.id } };
  if (work.squash && !canWork) throw new CannotSquashError();
  const needsJob = work.squash || (work.wantsGuids && canWork);
  // While it waits it holds on to the history that it is made from, so that the source may be deleted; squashed, it has no pushes.
  const view = work.squash
    ? { ...copy.view, last_pushed_at: null }
    : copy.view.head_index === 0
      ? baselineView
      : copy.view;
  const done = !needsJob && remoteStore === undefined;
  const id = await insertCopy(tx, caller, quotas, { ...copy, view, state: done ? 'initialized' : 'notInitialized' });
  if (needsJob)
    await enqueue(tx, {
      kind: deriveJob,
      subjectId: id,
      tenant: copy.to.itwin.id,
      userId: caller.user.id,
      payload: work,
    });
  else if (remoteStore !== undefined)
    await beginTransfer(
      tx,
      { ...view, id, itwin_id: copy.to.itwin.id, baseline_id: copy.source.baseline_id },
      remoteStore,
      work.order,
    );
  return id;
}
