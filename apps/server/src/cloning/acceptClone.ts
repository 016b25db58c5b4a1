import type { IModelAccess, ITwinAccess } from '../access/permissions.ts';
import { lockInitializedIModel } from '../db/statements/lockIModel.ts';
import type { Caller } from '../domain.ts';
import { beginTransfer } from '../transfer/begin.ts';
import {
  inheritedProperties,
  insertCopy,
  withForeignKeyRetry,
  viewUpTo,
  remoteStoreFor,
  type CopyParts,
  type CopyRequest,
} from './copyIModel.ts';

/**
 * Clones an iModel. Within one store that is one transaction: the clone is whole, durable and usable when this returns. Into
 * another data center it is accepted here, and brought over by a durable job.
 *
 * A clone is a row: the source's baseline, the source's history, and a head where to cut it. No changeset row and no blob
 * is copied, so the cost is the same for 0 and 100,000 changesets and at any depth of history, and nothing of the clone
 * hangs on the source: what both see belongs to neither and stays while one of them is there. Checkpoints hang on
 * changesets, so the clone has those of the source too.
 *
 * Both sides are authorised by the caller of this function. The set of changesets is fixed here: what is pushed to the
 * source later is not part of the clone.
 * @returns the id of the clone
 * @throws ApiError iModelNotFound, iModelNotInitialized, ChangesetNotFound, iModelExists; QuotaExceededError
 */
export async function acceptClone(
  { database, stores, quotas }: CopyParts,
  caller: Caller,
  from: IModelAccess,
  to: ITwinAccess,
  request: CopyRequest,
): Promise<string> {
  return withForeignKeyRetry(database, async (tx) => {
    const source = await lockInitializedIModel(tx, database.engine, from.imodel.id, 'clone');
    const view = await viewUpTo(tx, source, request.upTo);
    const remoteStore = remoteStoreFor(stores, from, to);
    const id = await insertCopy(tx, caller, quotas, {
      source,
      to,
      ...inheritedProperties(source, request),
      view,
      state: remoteStore === undefined ? 'initialized' : 'notInitialized',
      operation: {
        kind: 'clone',
        changesets: view.head_index,
        cloned_from_imodel_id: source.id,
        cloned_from_changeset_id: view.head_changeset_id,
      },
    });
    if (remoteStore !== undefined)
      await beginTransfer(tx, { ...view, id, itwin_id: to.itwin.id, baseline_id: source.baseline_id }, remoteStore, {
        caller,
        fromIModelId: source.id,
      });
    return id;
  });
}
