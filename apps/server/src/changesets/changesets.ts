import type { IModelAccess } from '../access/permissions.ts';
import { itemsThatFit } from '../db/keysetPaging.ts';
import { audit } from '../access/audit.ts';
import type { ChangesetVerifier } from './verifier.ts';
import type { Checkpoints } from '../checkpoints/checkpoints.ts';
import { compiledQuery } from '../db/compiledQuery.ts';
import type { Database, Tx } from '../db/database.ts';
import { defer, inOrder } from '../db/deferred.ts';
import type { ChangesetTable, IModelTable, PendingChangesetTable } from '../db/schema.ts';
import { appendChangeset } from '../db/statements/appendChangeset.ts';
import { findChangeset } from '../db/statements/findChangeset.ts';
import type { HistoryView } from '../db/statements/segmentAt.ts';
import {
  listChangesets,
  listedSizes,
  listSummaries,
  type ChangesetPage,
  type ChangesetSummary,
} from '../db/statements/listChangesets.ts';
import { lockInitializedIModel } from '../db/statements/lockIModel.ts';
import { parseGuid, type Caller, type ChangesetRef } from '../domain.ts';
import { ApiError, detail } from '../errors.ts';
import { raisePushed, receiversOf } from '../events/events.ts';
import { nextTimestamp } from '../imodels/imodelRow.ts';
import { releaseBlobs, type Blobs } from '../storage/blobs.ts';
import type { Uploads } from '../storage/uploads.ts';
import { findGroup, joinGroup } from './changesetGroups.ts';

/** A changeset as its iModel has it, whichever segment contains it. */
export type Changeset = Omit<ChangesetTable, 'segment_id'>;

/** A range of changesets, without the first `skip` of them, from which a page takes `top`. */
type PageOfChangesets = Omit<ChangesetPage, 'limit'> & { top: number; skip: number };

/** A changeset to be pushed. */
export interface PushRequest {
  id: string;
  parentId: string;
  briefcaseId: number;
  /** Briefcase under which an imported changeset is recorded; null for the briefcase that pushes. */
  recordedBriefcaseId: number | null;
  fileSize: number;
  description: string | null;
  containingChanges: number;
  /** JSON or null. */
  synchronizationInfo: string | null;
  /** Changeset group to add it to. */
  groupId: string | null;
}

/** Reads changesets and accepts pushes. A push is begun here, uploaded through a signed link and completed here. */
export class Changesets {
  readonly #database: Database;
  readonly #blobs: Blobs;
  readonly #uploads: Uploads;
  readonly #checkpoints: Checkpoints;
  readonly #verifier: ChangesetVerifier;

  constructor(parts: {
    database: Database;
    blobs: Blobs;
    uploads: Uploads;
    checkpoints: Checkpoints;
    verifier: ChangesetVerifier;
  }) {
    this.#database = parts.database;
    this.#blobs = parts.blobs;
    this.#uploads = parts.uploads;
    this.#checkpoints = parts.checkpoints;
    this.#verifier = parts.verifier;
  }

  /** @throws ApiError ChangesetNotFound */
  async get(view: HistoryView, ref: ChangesetRef | undefined): Promise<ChangesetTable> {
    const changeset = ref === undefined ? undefined : await findChangeset(this.#database.db, view, ref);
    if (changeset === undefined) throw new ApiError('ChangesetNotFound');
    return changeset;
  }

  /** Up to `top` changesets and one more, or fewer if their synchronization info fills a page. `fitting` of them make a page. */
  async list(
    view: HistoryView,
    { top, ...range }: PageOfChangesets,
  ): Promise<{ rows: ChangesetTable[]; fitting: number }> {
    const page = afterSkipped(view, range);
    const sizes = await listedSizes(this.#database, view, { ...page, limit: top });
    const fitting = sizes === undefined ? top : itemsThatFit(sizes);
    return { rows: await listChangesets(this.#database, view, { ...page, limit: fitting + 1 }), fitting };
  }

  /** Up to `top` changesets and one more. They show no synchronization info, so any number of them fits on a page. */
  async listSummaries(view: HistoryView, { top, ...range }: PageOfChangesets): Promise<ChangesetSummary[]> {
    return listSummaries(this.#database, view, { ...afterSkipped(view, range), limit: top + 1 });
  }

  /**
   * Begins a push: acquires the lease of the iModel for pushing, which only one briefcase can hold. A briefcase that begins
   * again takes over its own unfinished push. Another briefcase must wait until that is complete or its lease has expired.
   * @throws ApiError iModelNotFound, iModelNotInitialized, BriefcaseNotFound, InsufficientPermissions (somebody else's
   * briefcase), InvalidiModelsRequest or ConflictWithAnotherUser (the recorded briefcase), ChangesetGroupNotFound, ChangesetGroupIsClosed, ChangesetExists, ConflictWithAnotherUser, NewerChangesExist; in this order
   */
  async begin(
    caller: Caller,
    access: IModelAccess,
    request: PushRequest,
  ): Promise<{ blobId: string; pending: PendingChangesetTable }> {
    return this.#database.db.transaction().execute(async (tx) => {
      const [imodel, briefcase, unfinished] = await inOrder(
        lockInitializedIModel(tx, this.#database.engine, access.imodel.id, 'push'),
        findBriefcase(tx, access.imodel.id, request.briefcaseId),
        findUnfinished.first(tx, { imodelId: access.imodel.id }),
      );
      requireOwn(caller, briefcase);
      if (request.recordedBriefcaseId !== null)
        await requireFreeRecord(tx, imodel, request.recordedBriefcaseId, request.briefcaseId);
      if (
        request.groupId !== null &&
        (await findGroup(tx, imodel.id, parseGuid(request.groupId))).state !== 'inProgress'
      )
        throw new ApiError('ChangesetGroupIsClosed');
      if ((await findChangeset(tx, imodel, { id: request.id })) !== undefined) throw new ApiError('ChangesetExists');
      const store = this.#blobs.stores.ofDataCenter(access.onITwin.itwin.data_center);
      const now = Date.now();
      if (unfinished !== undefined) {
        if (
          unfinished.briefcase_id !== request.briefcaseId &&
          holds(unfinished, now, this.#uploads.leaseMs(store, Infinity))
        )
          throw new ApiError('ConflictWithAnotherUser');
        await abandonPush(tx, unfinished, now, unfinished.briefcase_id === request.briefcaseId ? 'begunAgain' : 'lost');
      }
      if (request.parentId !== imodel.head_changeset_id) throw new ApiError('NewerChangesExist');
      const blobId = await this.#blobs.createPending(tx, store, access.onITwin.itwin, request.fileSize, now);
      const pending: PendingChangesetTable = {
        imodel_id: imodel.id,
        changeset_id: request.id,
        parent_id: request.parentId,
        briefcase_id: request.briefcaseId,
        blob_id: blobId,
        description: request.description,
        containing_changes: request.containingChanges,
        creator_id: caller.user.id,
        application_id: caller.application.id,
        application_name: caller.application.name,
        synchronization_info: request.synchronizationInfo,
        created_at: now,
        lease_until: now + this.#uploads.leaseMs(store, request.fileSize),
        group_id: request.groupId === null ? null : request.groupId.toLowerCase(),
        recorded_briefcase_id: request.recordedBriefcaseId,
      };
      await defer(tx, insertPending.run(tx, pending));
      return { blobId, pending };
    });
  }

  /**
   * Completes a push: the changeset gets the next index. Repeating the call, for example after its answer was lost, returns
   * the same changeset again.
   * @throws ApiError iModelNotFound, iModelNotInitialized, BriefcaseNotFound, InsufficientPermissions, ChangesetExists,
   * ChangesetNotFound, ConflictWithAnotherUser, FileNotFound, DataConflict, NewerChangesExist; in this order
   */
  async complete(
    caller: Caller,
    access: IModelAccess,
    changesetId: string | undefined,
    briefcaseId: number,
  ): Promise<Changeset> {
    await this.#finalizeUpload(access.imodel.id, changesetId, briefcaseId);
    await this.#verify(caller, access.imodel.id, changesetId, briefcaseId);
    return this.#database.db.transaction().execute(async (tx) => {
      const { id: imodelId, itwin_id: iTwinId } = access.imodel;
      const [imodel, briefcase, pending, receivers] = await inOrder(
        lockInitializedIModel(tx, this.#database.engine, imodelId, 'push'),
        findBriefcase(tx, imodelId, briefcaseId),
        findPending.first(tx, { imodelId, changesetId: changesetId ?? '' }),
        receiversOf(tx, iTwinId),
      );
      requireOwn(caller, briefcase);
      if (changesetId === undefined) throw new ApiError('ChangesetNotFound');
      if (pending === undefined) {
        const done = await findChangeset(tx, imodel, { id: changesetId });
        if (done === undefined) throw await whyAbandoned(tx, imodel, changesetId, briefcaseId);
        if (
          done.creator_id === caller.user.id &&
          (done.briefcase_id === briefcaseId || (await findBriefcase(tx, imodel.id, done.briefcase_id)) === undefined)
        )
          return done;
        throw new ApiError('ChangesetExists');
      }
      if (pending.briefcase_id !== briefcaseId) throw new ApiError('ConflictWithAnotherUser');
      if (pending.blob_state === 'pending') throw new ApiError('FileNotFound');
      if (pending.blob_state === 'refused')
        throw new ApiError('DataConflict', {
          message: 'File size provided during Changeset creation does not match actual file size.',
        });
      if (pending.parent_id !== imodel.head_changeset_id) throw new ApiError('NewerChangesExist');

      const pushedAt = nextTimestamp(imodel);
      const changeset: Omit<Changeset, 'index'> = {
        id: pending.changeset_id,
        parent_id: pending.parent_id,
        blob_id: pending.blob_id,
        file_size: pending.blob_size,
        description: pending.description,
        containing_changes: pending.containing_changes,
        briefcase_id: pending.recorded_briefcase_id ?? pending.briefcase_id,
        creator_id: pending.creator_id,
        pushed_at: pushedAt,
        application_id: pending.application_id,
        application_name: pending.application_name,
        synchronization_info: pending.synchronization_info,
      };
      await defer(tx, deletePending.run(tx, { imodelId }));
      const appended = await appendChangeset(tx, imodel, changeset, pushedAt);
      const index = appended.head_index;
      // An imported changeset was made elsewhere, under locks that are unknown here.
      if (pending.recorded_briefcase_id !== null)
        await defer(tx, tx.updateTable('imodel').set({ inherited_index: index }).where('id', '=', imodel.id).execute());
      await this.#checkpoints.scheduleTip(tx, { ...imodel, ...appended }, caller.user.id);
      if (pending.group_id !== null) await joinGroup(tx, imodel.id, index, pending.group_id, pushedAt);
      const pushed = { id: changeset.id, index, briefcaseId: changeset.briefcase_id };
      await raisePushed(tx, imodel, pushed, caller.user.id, receivers);
      await audit(tx, caller, {
        at: pushedAt,
        action: 'changeset.push',
        iTwinId: imodel.itwin_id,
        iModelId: imodel.id,
        detail: { id: changeset.id, index },
      });
      return { ...changeset, index };
    });
  }

  /** Reads a small file of a push while it is being stored. @returns takes its chunks; undefined if it is read when the push is completed */
  onArrival(blobId: string, parentId: string, size: number): ((chunk: Buffer) => void) | undefined {
    return this.#verifier.onArrival(blobId, parentId, size);
  }

  /** Finalizes a direct upload. This runs outside the transaction because it reads the whole file for its hash. */
  async #finalizeUpload(iModelId: string, changesetId: string | undefined, briefcaseId: number): Promise<void> {
    if (changesetId === undefined || !this.#blobs.stores.anyDirectUploads) return;
    const pending = await pendingBlob.first(this.#database.db, { iModelId, changesetId, briefcaseId });
    if (pending !== undefined) await this.#uploads.finalize(pending.blob_id);
  }

  /**
   * Refuses a push whose file does not have the id that it was begun with, because no operation removes a changeset. The
   * push is abandoned, so that its client or any other can begin a push at once.
   * @throws ApiError DataConflict
   */
  async #verify(caller: Caller, iModelId: string, changesetId: string | undefined, briefcaseId: number): Promise<void> {
    if (changesetId === undefined || !this.#verifier.on) return;
    const pending = await ownPending.first(this.#database.db, {
      iModelId,
      changesetId,
      briefcaseId,
      userId: caller.user.id,
    });
    const blob = pending && (await this.#blobs.findReadable(pending.blob_id));
    if (pending === undefined || blob === undefined) return;
    const fault = await this.#verifier.faultOf(
      { id: changesetId, parentId: pending.parent_id },
      () => this.#blobs.read(blob),
      blob,
    );
    if (fault === undefined) return;
    await this.#database.db.transaction().execute(async (tx) => {
      const imodel = await lockInitializedIModel(tx, this.#database.engine, iModelId, 'push');
      const still = await tx
        .selectFrom('pending_changeset')
        .selectAll()
        .where('imodel_id', '=', iModelId)
        .where('blob_id', '=', pending.blob_id)
        .executeTakeFirst();
      if (still === undefined) return;
      const now = Date.now();
      await abandonPush(tx, still, now);
      await audit(tx, caller, {
        at: now,
        action: 'changeset.refuse',
        iTwinId: imodel.itwin_id,
        iModelId,
        detail: { id: changesetId, fault },
      });
    });
    throw new ApiError('DataConflict', {
      message: `The uploaded file is refused for the Changeset ${changesetId}: ${fault}. Begin the push again.`,
    });
  }
}

/** Indexes have no gaps, so `skip` moves the range: walking the skipped rows took 1.5 s at 1,000,000 changesets. */
function afterSkipped(
  view: HistoryView,
  { skip, ...range }: Omit<PageOfChangesets, 'top'>,
): Omit<ChangesetPage, 'limit'> {
  return range.descending
    ? { ...range, last: Math.min(range.last, view.head_index) - skip }
    : { ...range, first: range.first + skip };
}

/** Whether a push still holds its lease. A lease that ends later than one that begins now was made on a clock that has been set back, and counts as expired. */
function holds({ lease_until }: PendingChangesetTable, now: number, leaseMs: number): boolean {
  return lease_until > now && lease_until <= now + leaseMs;
}

/**
 * Abandons an unfinished push; its upload link stops working.
 * @param why `lost` if its lease expired; this is recorded, so that its client gets the reason when it completes the push. In
 * the other cases its client knows, or no longer exists
 */
export async function abandonPush(
  tx: Tx,
  pending: PendingChangesetTable,
  now: number,
  why: 'lost' | 'begunAgain' | 'ended' = 'ended',
): Promise<void> {
  const { imodel_id, changeset_id, briefcase_id, parent_id, blob_id } = pending;
  if (why === 'lost')
    await tx
      .insertInto('abandoned_push')
      .values({ imodel_id, changeset_id, briefcase_id, parent_id, blob_id, abandoned_at: now })
      .onConflict((conflict) =>
        conflict
          .columns(['imodel_id', 'changeset_id', 'briefcase_id'])
          .doUpdateSet({ parent_id, blob_id, abandoned_at: now }),
      )
      .execute();
  // The blob tells this push from a newer one that may have replaced it meanwhile.
  await tx
    .deleteFrom('pending_changeset')
    .where('imodel_id', '=', pending.imodel_id)
    .where('blob_id', '=', pending.blob_id)
    .execute();
  await releaseBlobs(tx, [pending.blob_id], now);
}

/** The error for a push that does not exist (any more). Rule of this server: if its lease expired, the error says whether to pull or to begin again. */
async function whyAbandoned(tx: Tx, imodel: IModelTable, changesetId: string, briefcaseId: number): Promise<ApiError> {
  const abandoned = await tx
    .selectFrom('abandoned_push')
    .select('parent_id')
    .where('imodel_id', '=', imodel.id)
    .where('changeset_id', '=', changesetId)
    .where('briefcase_id', '=', briefcaseId)
    .executeTakeFirst();
  if (abandoned === undefined) return new ApiError('ChangesetNotFound');
  return new ApiError(
    abandoned.parent_id === imodel.head_changeset_id ? 'ConflictWithAnotherUser' : 'NewerChangesExist',
  );
}

/** Rule of this server: users push from their own briefcases. @throws ApiError BriefcaseNotFound, InsufficientPermissions */
function requireOwn(caller: Caller, briefcase: { owner_id: string } | undefined): void {
  if (briefcase === undefined) throw new ApiError('BriefcaseNotFound');
  if (briefcase.owner_id !== caller.user.id) throw new ApiError('InsufficientPermissions');
}

/**
 * Rule of this server: a changeset can be recorded only under a briefcase id that nobody holds here and that will never be
 * issued. Ids are issued in ascending order, so those below the importer's own briefcase will not be issued any more.
 */
async function requireFreeRecord(tx: Tx, imodel: IModelTable, recorded: number, own: number): Promise<void> {
  if (recorded >= own)
    throw new ApiError('InvalidiModelsRequest', {
      message: 'Cannot create Changeset.',
      details: [detail.invalidValue('recordedBriefcaseId', "'recordedBriefcaseId' must be less than 'briefcaseId'.")],
    });
  if ((await findBriefcase(tx, imodel.id, recorded)) !== undefined)
    throw new ApiError('ConflictWithAnotherUser', {
      message: `Briefcase ${recorded} of this iModel is in use, and the imported Changeset was made by a briefcase with the same id elsewhere: both could make elements with the same ids. Release the briefcase first.`,
    });
}

function findBriefcase(tx: Tx, imodelId: string, briefcaseId: number): Promise<{ owner_id: string } | undefined> {
  return briefcaseOwner.first(tx, { imodelId, briefcaseId });
}

const briefcaseOwner = compiledQuery((db, { imodelId, briefcaseId }: { imodelId: string; briefcaseId: number }) =>
  db
    .selectFrom('briefcase')
    .select('owner_id')
    .where('imodel_id', '=', imodelId)
    .where('briefcase_id', '=', briefcaseId),
);
const findUnfinished = compiledQuery((db, { imodelId }: { imodelId: string }) =>
  db.selectFrom('pending_changeset').selectAll().where('imodel_id', '=', imodelId),
);
const findPending = compiledQuery((db, { imodelId, changesetId }: { imodelId: string; changesetId: string }) =>
  db
    .selectFrom('pending_changeset')
    .innerJoin('blob', 'blob.id', 'pending_changeset.blob_id')
    .selectAll('pending_changeset')
    .select(['blob.state as blob_state', 'blob.size as blob_size'])
    .where('imodel_id', '=', imodelId)
    .where('changeset_id', '=', changesetId),
);
/** A push of one briefcase. */
interface PushOfBriefcase {
  iModelId: string;
  changesetId: string;
  briefcaseId: number;
}
const pendingBlob = compiledQuery((db, { iModelId, changesetId, briefcaseId }: PushOfBriefcase) =>
  db
    .selectFrom('pending_changeset')
    .select('blob_id')
    .where('imodel_id', '=', iModelId)
    .where('changeset_id', '=', changesetId)
    .where('briefcase_id', '=', briefcaseId),
);
const ownPending = compiledQuery(
  (db, { iModelId, changesetId, briefcaseId, userId }: PushOfBriefcase & { userId: string }) =>
    db
      .selectFrom('pending_changeset as p')
      .innerJoin('briefcase as b', (join) =>
        join.onRef('b.imodel_id', '=', 'p.imodel_id').onRef('b.briefcase_id', '=', 'p.briefcase_id'),
      )
      .select(['p.blob_id', 'p.parent_id'])
      .where('p.imodel_id', '=', iModelId)
      .where('p.changeset_id', '=', changesetId)
      .where('p.briefcase_id', '=', briefcaseId)
      .where('b.owner_id', '=', userId),
);
const insertPending = compiledQuery((db, row: PendingChangesetTable) =>
  db.insertInto('pending_changeset').values({
    imodel_id: row.imodel_id,
    changeset_id: row.changeset_id,
    parent_id: row.parent_id,
    briefcase_id: row.briefcase_id,
    blob_id: row.blob_id,
    description: row.description,
    containing_changes: row.containing_changes,
    creator_id: row.creator_id,
    application_id: row.application_id,
    application_name: row.application_name,
    synchronization_info: row.synchronization_info,
    created_at: row.created_at,
    lease_until: row.lease_until,
    group_id: row.group_id,
    recorded_briefcase_id: row.recorded_briefcase_id,
  }),
);
const deletePending = compiledQuery((db, { imodelId }: { imodelId: string }) =>
  db.deleteFrom('pending_changeset').where('imodel_id', '=', imodelId),
);
