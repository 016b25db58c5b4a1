import { Type } from '../jsonSchema.ts';
import type { HeldLockLevel } from '../db/schema.ts';
import { ApiError, detail } from '../errors.ts';
import { maxObjects, type LockLevel } from '../locks/locks.ts';
import type { SortKey } from '../db/keysetPaging.ts';
import { pageRequest, pagingParameters } from './paging.ts';
import { imodelRoute, type Route } from './route.ts';
import { Nullable, PageLinks } from './schemas.ts';

const tag = 'Locks';
const heldLevels = ['shared', 'exclusive'];

const LockedObjects = Type.Array(
  Type.Object({ lockLevel: Type.String({ enum: heldLevels }), objectIds: Type.Array(Type.String()) }),
);
const LockSchema = Type.Object({ briefcaseId: Type.Integer(), lockedObjects: LockedObjects });
/**
 * Allows 0, which is not a briefcase id: the operation answers it with BriefcaseNotFound instead of a validation error.
 */
const BriefcaseId = Type.Integer({
  minimum: 0,
  maximum: 2_147_483_647,
  explain: "Expected a value of type 'integer'.",
});
const ChangesetId = Type.Optional(
  Nullable(Type.String({ maxLength: 255, description: 'Changeset that the briefcase is at; `""` is the baseline.' })),
);

/** Groups objects by lock level and preserves their order. */
function byLevel(
  locks: readonly { object_id: string; level: HeldLockLevel }[],
): { lockLevel: HeldLockLevel; objectIds: string[] }[] {
  const groups = new Map<HeldLockLevel, string[]>();
  for (const { object_id, level } of locks) groups.set(level, [...(groups.get(level) ?? []), object_id]);
  return [...groups].map(([lockLevel, objectIds]) => ({ lockLevel, objectIds }));
}

const text = (column: string, descending = false): SortKey => ({ column, type: 'text', descending });

const listLocks = imodelRoute({
  operationId: 'get-imodel-locks',
  method: 'GET',
  path: '/imodels/:iModelId/locks',
  tag,
  summary: 'List locks',
  description: 'A page counts object ids, so that the locks of one briefcase may go on over several pages.',
  access: { on: 'imodel', permission: 'imodels_webview', level: 'iModel', personal: true },
  invalid: 'Cannot get Locks.',
  query: Type.Object({
    briefcaseId: Type.Optional(Type.Integer({ minimum: 0, maximum: 2_147_483_647 })),
    lockLevel: Type.Optional(Type.String({ enum: heldLevels })),
    ...pagingParameters,
  }),
  response: {
    status: 200,
    description: 'A page of locks.',
    schema: Type.Object({ locks: Type.Array(LockSchema), _links: PageLinks }),
  },
  async handler({ access, query, rawQuery, links, services, invalid }) {
    const { id } = access.imodel;
    const keys: SortKey[] = [
      { column: 'briefcase_id', type: 'number', descending: false },
      text('level', true),
      text('object_id'),
    ];
    const page = await services.locks.list(
      id,
      { briefcaseId: query.briefcaseId, level: query.lockLevel as HeldLockLevel | undefined },
      pageRequest(query, keys, invalid),
    );
    const briefcases = new Set(page.items.map((lock) => lock.briefcase_id));
    return {
      locks: [...briefcases].map((briefcaseId) => ({
        briefcaseId,
        lockedObjects: byLevel(page.items.filter((lock) => lock.briefcase_id === briefcaseId)),
      })),
      _links: links.page(`/imodels/${id}/locks`, rawQuery, page),
    };
  },
});

/** The canonical form of an object id. Ids are hexadecimal numbers, so case and leading zeros do not matter. */
const canonicalId = (id: string): string => id.toLowerCase().replace(/^0x0+/, '0x');

const updateLocks = imodelRoute({
  operationId: 'update-imodel-locks',
  method: 'PATCH',
  path: '/imodels/:iModelId/locks',
  tag,
  summary: 'Take, change and release locks, all or none',
  access: {
    on: 'imodel',
    permission: 'imodels_write',
    level: 'iModel',
    also: "`imodels_manage` to release what somebody else's briefcase holds.",
  },
  invalid: 'Cannot update Locks.',
  body: Type.Object({
    briefcaseId: BriefcaseId,
    changesetId: ChangesetId,
    lockedObjects: Type.Array(
      Type.Object({
        lockLevel: Type.String({ enum: ['none', ...heldLevels] }),
        objectIds: Type.Array(
          Type.String({
            pattern: '^0[xX](?=0*[1-9a-fA-F])[0-9a-fA-F]{1,32}$',
            description: 'Hexadecimal. `0x0` is no object.',
          }),
        ),
      }),
    ),
  }),
  response: {
    status: 200,
    description: 'The named locks that the briefcase holds now.',
    schema: Type.Object({ lock: LockSchema }),
  },
  errors: [
    'BriefcaseNotFound',
    'ChangesetNotFound',
    'LockNotFound',
    'ConflictWithAnotherUser',
    'NewerChangesExist',
    'iModelNotInitialized',
  ],
  async handler({ access, caller, body, services, invalid }) {
    const wanted = new Map<string, LockLevel>();
    let count = 0;
    for (const { lockLevel, objectIds } of body.lockedObjects) {
      for (const objectId of objectIds) wanted.set(canonicalId(objectId), lockLevel as LockLevel);
      count += objectIds.length;
    }
    if (count > maxObjects)
      throw new ApiError('RequestTooLarge', {
        message: `Provided 'objectIds' count exceeds the limit of ${maxObjects}.`,
      });
    if (count > wanted.size)
      throw invalid([
        detail.invalidValue(
          'lockedObjects',
          "Provided 'lockedObjects' value is not valid. An object can be named only once.",
        ),
      ]);
    const locks = await services.locks.update(caller, access, {
      briefcaseId: body.briefcaseId,
      changesetId: body.changesetId ?? undefined,
      wanted,
    });
    return { lock: { briefcaseId: body.briefcaseId, lockedObjects: byLevel(locks) } };
  },
});

const releaseChunk = imodelRoute({
  operationId: 'release-imodel-locks-chunk',
  method: 'POST',
  path: '/imodels/:iModelId/locks/release-chunk',
  tag,
  summary: "Release some of a briefcase's locks",
  description: `At most ${maxObjects} a call: repeat it until \`isLastChunk\` is true.`,
  access: {
    on: 'imodel',
    permission: 'imodels_write',
    level: 'iModel',
    also: "`imodels_manage` for somebody else's briefcase.",
  },
  invalid: 'Cannot release Locks.',
  body: Type.Object({ briefcaseId: BriefcaseId, changesetId: ChangesetId }),
  response: {
    status: 200,
    description: 'Whether none are left.',
    schema: Type.Object({ isLastChunk: Type.Boolean() }),
  },
  errors: ['BriefcaseNotFound', 'ChangesetNotFound', 'iModelNotInitialized'],
  async handler({ access, caller, body, services }) {
    return {
      isLastChunk: await services.locks.releaseChunk(caller, access, body.briefcaseId, body.changesetId ?? undefined),
    };
  },
});

const listReleased = imodelRoute({
  operationId: 'get-imodel-released-locks',
  method: 'GET',
  path: '/imodels/:iModelId/locks/released-locks',
  tag,
  summary: 'List objects whose lock was released after a changeset',
  access: { on: 'imodel', permission: 'imodels_webview', level: 'iModel', personal: true },
  invalid: 'Cannot get released Locks.',
  query: Type.Object({
    afterChangesetIndex: Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER }),
    ...pagingParameters,
  }),
  response: {
    status: 200,
    description: 'A page of released locks, by the level they were released from.',
    schema: Type.Object({ releasedLocks: LockedObjects, _links: PageLinks }),
  },
  async handler({ access, query, rawQuery, links, services, invalid }) {
    const { id } = access.imodel;
    const page = await services.locks.listReleased(
      id,
      query.afterChangesetIndex,
      pageRequest(query, [text('level'), text('object_id')], invalid),
    );
    return {
      releasedLocks: byLevel(page.items),
      _links: links.page(`/imodels/${id}/locks/released-locks`, rawQuery, page),
    };
  },
});

export const lockRoutes: Route[] = [listLocks, updateLocks, releaseChunk, listReleased];
