import type { IModelAccess } from '../access/permissions.ts';
import { pageReader, readPage, type Page, type PageRequest } from '../db/keysetPaging.ts';
import { audit } from '../access/audit.ts';
import type { Database, Tx } from '../db/database.ts';
import type { HeldLockLevel, IModelTable, ObjectLockTable, ReleasedLockTable } from '../db/schema.ts';
import { findChangeset } from '../db/statements/findChangeset.ts';
import { lockInitializedIModel } from '../db/statements/lockIModel.ts';
import { parseChangesetId, type Caller } from '../domain.ts';
import { ApiError } from '../errors.ts';

export type LockLevel = HeldLockLevel | 'none';

/** Rule of the API: most object ids per request. Also the number of locks per chunk of a release. */
export const maxObjects = 1000;

export interface LockRequest {
  briefcaseId: number;
  /** Current changeset of the briefcase; `""` is the baseline; undefined for a release that abandons the changes. */
  changesetId: string | undefined;
  /** Requested level by object id (lower case); at most `maxObjects`. */
  wanted: ReadonlyMap<string, LockLevel>;
}

/** Locks of briefcases on objects. An object has any number of shared locks or one exclusive lock. */
export class Locks {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  async list(
    imodelId: string,
    filter: { briefcaseId?: number | undefined; level?: HeldLockLevel | undefined },
    request: PageRequest,
  ): Promise<Page<ObjectLockTable>> {
    // The index has the level after the briefcase.
    const walks = filter.level !== undefined && filter.briefcaseId === undefined;
    let query = pageReader(this.#database, request, walks)
      .selectFrom('object_lock')
      .selectAll()
      .where('imodel_id', '=', imodelId);
    if (filter.briefcaseId !== undefined) query = query.where('briefcase_id', '=', filter.briefcaseId);
    if (filter.level !== undefined) query = query.where('level', '=', filter.level);
    return readPage(query, request);
  }

  /** Objects whose lock was released at a changeset after `afterIndex`. */
  async listReleased(imodelId: string, afterIndex: number, request: PageRequest): Promise<Page<ReleasedLockTable>> {
    // In page order the index holds the index of the changeset too, but all locks of the iModel are walked.
    return readPage(
      pageReader(this.#database, request, true)
        .selectFrom('released_lock')
        .selectAll()
        .where('imodel_id', '=', imodelId)
        .where('changeset_index', '>', afterIndex),
      request,
    );
  }

  /**
   * Acquires, changes and releases locks, all or none.
   * @returns the resulting locks of the briefcase on these objects
   * @throws ApiError iModelNotFound, iModelNotInitialized, BriefcaseNotFound, InsufficientPermissions, ChangesetNotFound,
   * LockNotFound, ConflictWithAnotherUser, NewerChangesExist; in this order, the last three with the objects concerned
   */
  async update(
    caller: Caller,
    access: IModelAccess,
    request: LockRequest,
  ): Promise<Pick<ObjectLockTable, 'object_id' | 'level'>[]> {
    return this.#database.db.transaction().execute(async (tx) => {
      const imodel = await lockInitializedIModel(tx, this.#database.engine, access.imodel.id, 'push');
      const releasesOnly = [...request.wanted.values()].every((level) => level === 'none');
      const ownerId = await ownerOf(tx, caller, access, request.briefcaseId, releasesOnly);
      const changesetIndex = await indexOf(tx, imodel, request.changesetId);
      const objects = [...request.wanted.keys()];
      if (objects.length === 0) return [];
      const held = await tx
        .selectFrom('object_lock')
        .selectAll()
        .where('imodel_id', '=', imodel.id)
        .where('object_id', 'in', objects)
        .execute();
      refuseUnheld(request, held);
      refuseConflicts(request, held);
      await refuseStale(tx, imodel, request, changesetIndex ?? 0);

      const own = new Map(
        held.filter((lock) => lock.briefcase_id === request.briefcaseId).map((lock) => [lock.object_id, lock]),
      );
      const released = [...request.wanted]
        .filter(([, level]) => level === 'none')
        .map(([object]) => own.get(object) as ObjectLockTable);
      await release(tx, imodel.id, request.briefcaseId, released, changesetIndex);
      const taken = [...request.wanted]
        .filter(([, level]) => level !== 'none')
        .map(([object_id, level]) => ({ object_id, level: level as HeldLockLevel }));
      if (taken.length > 0)
        await tx
          .insertInto('object_lock')
          .values(taken.map((lock) => ({ ...lock, imodel_id: imodel.id, briefcase_id: request.briefcaseId })))
          .onConflict((conflict) =>
            conflict
              .columns(['imodel_id', 'object_id', 'briefcase_id'])
              .doUpdateSet((eb) => ({ level: eb.ref('excluded.level') })),
          )
          .execute();
      await auditLocks(tx, caller, imodel, {
        briefcaseId: request.briefcaseId,
        ownerId,
        taken: taken.length,
        released: released.length,
      });
      return taken;
    });
  }

  /**
   * Releases up to `maxObjects` locks of a briefcase. Holding none is not an error: clients call this after every push.
   * @returns whether no locks remain
   * @throws ApiError as `update`, without the last three
   */
  async releaseChunk(
    caller: Caller,
    access: IModelAccess,
    briefcaseId: number,
    changesetId: string | undefined,
  ): Promise<boolean> {
    return this.#database.db.transaction().execute(async (tx) => {
      const imodel = await lockInitializedIModel(tx, this.#database.engine, access.imodel.id, 'push');
      const ownerId = await ownerOf(tx, caller, access, briefcaseId, true);
      const changesetIndex = await indexOf(tx, imodel, changesetId);
      const held = await tx
        .selectFrom('object_lock')
        .selectAll()
        .where('imodel_id', '=', imodel.id)
        .where('briefcase_id', '=', briefcaseId)
        .limit(maxObjects + 1)
        .execute();
      const released = held.slice(0, maxObjects);
      await release(tx, imodel.id, briefcaseId, released, changesetIndex);
      if (released.length > 0)
        await auditLocks(tx, caller, imodel, { briefcaseId, ownerId, taken: 0, released: released.length });
      return held.length <= maxObjects;
    });
  }
}

/** Owner of a briefcase. Rule of the API: write changes the locks of own briefcases; manage also releases those of others. */
async function ownerOf(
  tx: Tx,
  caller: Caller,
  access: IModelAccess,
  briefcaseId: number,
  releasesOnly: boolean,
): Promise<string> {
  const briefcase = await tx
    .selectFrom('briefcase')
    .select('owner_id')
    .where('imodel_id', '=', access.imodel.id)
    .where('briefcase_id', '=', briefcaseId)
    .executeTakeFirst();
  if (briefcase === undefined) throw new ApiError('BriefcaseNotFound');
  if (briefcase.owner_id === caller.user.id || (releasesOnly && access.permissions.has('imodels_manage')))
    return briefcase.owner_id;
  throw new ApiError('InsufficientPermissions');
}

/** The owner shows whether the locks of another user were released. Objects are counted, not listed: a request may have 1,000. */
async function auditLocks(
  tx: Tx,
  caller: Caller,
  { id, itwin_id }: IModelTable,
  detail: { briefcaseId: number; ownerId: string; taken: number; released: number },
): Promise<void> {
  await audit(tx, caller, { at: Date.now(), action: 'locks.update', iTwinId: itwin_id, iModelId: id, detail });
}

async function indexOf(tx: Tx, imodel: IModelTable, changesetId: string | undefined): Promise<number | undefined> {
  if (changesetId === undefined) return undefined;
  if (changesetId === '') return 0;
  const id = parseChangesetId(changesetId);
  const changeset = id === undefined ? undefined : await findChangeset(tx, imodel, { id });
  if (changeset === undefined) throw new ApiError('ChangesetNotFound');
  return changeset.index;
}

function refuseUnheld({ briefcaseId, wanted }: LockRequest, held: readonly ObjectLockTable[]): void {
  const own = new Set(held.filter((lock) => lock.briefcase_id === briefcaseId).map((lock) => lock.object_id));
  const objectIds = [...wanted]
    .filter(([object, level]) => level === 'none' && !own.has(object))
    .map(([object]) => object);
  if (objectIds.length > 0) throw new ApiError('LockNotFound', { siblings: { objectIds } });
}

/** Rule of the API: an exclusive lock excludes all other locks; shared locks are compatible with each other. */
function refuseConflicts({ briefcaseId, wanted }: LockRequest, held: readonly ObjectLockTable[]): void {
  const conflicting = new Map<string, { objectId: string; lockLevel: HeldLockLevel; briefcaseIds: number[] }>();
  for (const lock of held) {
    const level = wanted.get(lock.object_id);
    if (lock.briefcase_id === briefcaseId || level === 'none' || (level === 'shared' && lock.level === 'shared'))
      continue;
    const entry = conflicting.get(lock.object_id) ?? {
      objectId: lock.object_id,
      lockLevel: lock.level,
      briefcaseIds: [],
    };
    entry.briefcaseIds.push(lock.briefcase_id);
    conflicting.set(lock.object_id, entry);
  }
  if (conflicting.size > 0)
    throw new ApiError('ConflictWithAnotherUser', {
      message: 'Lock(s) is owned by another Briefcase.',
      siblings: { conflictingLocks: [...conflicting.values()] },
    });
}

/**
 * Rule of the API: before an object can be locked, the briefcase must pull the changesets up to which the object was locked
 * exclusively. Only the source knows the locks of inherited changesets, so every object counts as locked for them.
 */
async function refuseStale(
  tx: Tx,
  imodel: IModelTable,
  { wanted }: LockRequest,
  changesetIndex: number,
): Promise<void> {
  const objects = [...wanted].filter(([, level]) => level !== 'none').map(([object]) => object);
  if (objects.length === 0) return;
  const newer =
    changesetIndex < imodel.inherited_index
      ? objects.sort()
      : await changedAfter(tx, imodel.id, objects, changesetIndex);
  if (newer.length > 0)
    throw new ApiError('NewerChangesExist', {
      message: 'One or more objects have been locked in a newer Changeset.',
      siblings: { objectIds: newer },
    });
}

/** The objects that were locked exclusively up to a later changeset than `index`. */
async function changedAfter(tx: Tx, imodelId: string, objects: readonly string[], index: number): Promise<string[]> {
  const rows = await tx
    .selectFrom('released_lock')
    .select('object_id')
    .where('imodel_id', '=', imodelId)
    .where('object_id', 'in', objects)
    .where('level', '=', 'exclusive')
    .where('changeset_index', '>', index)
    .orderBy('object_id')
    .execute();
  return rows.map(({ object_id }) => object_id);
}

/** Rule of the API: a release without a changeset abandons the changes and records nothing; an older changeset does not replace a later one. */
async function release(
  tx: Tx,
  imodelId: string,
  briefcaseId: number,
  locks: readonly ObjectLockTable[],
  changesetIndex: number | undefined,
): Promise<void> {
  if (locks.length === 0) return;
  await tx
    .deleteFrom('object_lock')
    .where('imodel_id', '=', imodelId)
    .where('briefcase_id', '=', briefcaseId)
    .where(
      'object_id',
      'in',
      locks.map((lock) => lock.object_id),
    )
    .execute();
  if (changesetIndex === undefined) return;
  await tx
    .insertInto('released_lock')
    .values(
      locks.map(({ object_id, level }) => ({ imodel_id: imodelId, object_id, level, changeset_index: changesetIndex })),
    )
    .onConflict((conflict) =>
      conflict
        .columns(['imodel_id', 'object_id'])
        .doUpdateSet((eb) => ({ level: eb.ref('excluded.level'), changeset_index: eb.ref('excluded.changeset_index') }))
        .whereRef('released_lock.changeset_index', '<=', 'excluded.changeset_index'),
    )
    .execute();
}
