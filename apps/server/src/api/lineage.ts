import { Type } from '../jsonSchema.ts';
import { maxFamily, type LineageNode } from '../imodels/lineage.ts';
import { storageUse } from '../imodels/storageUse.ts';
import type { Bytes } from '../db/statements/storageUse.ts';
import { imodelRoute, type Route } from './route.ts';
import { Nullable, time } from './schemas.ts';

const tag = 'iModels';

const NodeSchema = Type.Object({
  id: Type.String({ description: 'Id of the iModel; a placeholder if it is not visible.' }),
  displayName: Nullable(Type.String({ description: 'Null if it is deleted or not visible.' })),
  iTwinId: Nullable(Type.String()),
  parentId: Nullable(
    Type.String({ description: 'The iModel it was derived from; null if that is not part of the answer.' }),
  ),
  relation: Nullable(
    Type.String({
      enum: ['source', 'clone', 'fork', 'template', null],
      description: 'How it was derived; `source` if it was not. Null if it is not visible.',
    }),
  ),
  changesetIndex: Nullable(
    Type.Integer({
      description: 'Last changeset of its parent that went into it; 0 for the baseline only, null if unknown.',
    }),
  ),
  changesetId: Nullable(Type.String()),
  createdDateTime: Nullable(Type.String()),
  headIndex: Nullable(Type.Integer({ description: 'Index of its own latest changeset.' })),
  deleted: Type.Boolean({ description: 'Shown as deleted only to administrators of its iTwin.' }),
  visible: Type.Boolean({
    description: 'False for an iModel between visible ones that the caller may not see or that is deleted.',
  }),
});

const getLineage = imodelRoute({
  operationId: 'get-imodel-lineage',
  method: 'GET',
  path: '/imodels/:iModelId/lineage',
  tag,
  summary: 'Get the family tree of an iModel',
  description: [
    'An extension of this server. The iModel, its ancestors, and everything that was cloned, forked or templated from any of them,',
    'parents before children. iModels that the caller may not see are left out, unless they connect visible ones; then nothing',
    'is said of them except that they exist. The answer does not tell a hidden iModel from a deleted one.',
    `At most ${maxFamily} iModels are examined, hidden ones included: ancestors first, then those derived from the iModel, then`,
    'the others; `truncated` says that there are more. Where an iModel was derived by an earlier version of this server, some',
    'properties may be unknown (null).',
  ].join(' '),
  access: { on: 'imodel', permission: 'imodels_webview', level: 'iModel' },
  invalid: 'Cannot get lineage.',
  response: {
    status: 200,
    description: 'The family tree.',
    schema: Type.Object({
      lineage: Type.Object({
        root: Type.String({ description: 'Id of the first entry.' }),
        iModels: Type.Array(NodeSchema),
        truncated: Type.Boolean(),
      }),
    }),
  },
  async handler({ caller, access, services }) {
    const { rootId, nodes, truncated } = await services.lineage.of(caller, access);
    return { lineage: { root: rootId, iModels: nodes.map(nodeOf), truncated } };
  },
});

function nodeOf({ createdAt, ...node }: LineageNode) {
  return { ...node, createdDateTime: createdAt === null ? null : time(createdAt) };
}

const bytes = {
  ownBytes: Type.Integer({ description: 'Bytes of files that nothing else needs.' }),
  sharedBytes: Type.Integer({ description: 'Bytes of files that something else needs too.' }),
  cloneOnlyBytes: Type.Integer({
    description:
      'The part of `ownBytes` and `sharedBytes` that was pushed to iModels which have been deleted, and is kept for those derived from them.',
  }),
};
const Part = Type.Object(bytes);

const getStorage = imodelRoute({
  operationId: 'get-imodel-storage',
  method: 'GET',
  path: '/imodels/:iModelId/storage',
  tag,
  summary: 'Get the storage use of an iModel',
  description: [
    'An extension of this server: the bytes of the files that the iModel needs, whichever iModel they were stored for.',
    '`ownBytes` become free when the iModel is deleted, after the grace period; `sharedBytes` remain, because other iModels, or',
    'transfers in progress, need the same files. Changesets up to `sharedUpToIndex` are shared, those after it are not. The baseline is',
    'shared if another iModel has it, as is the one of empty iModels, which belongs to the server. Checkpoints are counted in blocks',
    'of 4 MiB, each once; blocks that are a part of the baseline file take no space of their own. The baseline never counts for',
    '`cloneOnlyBytes`, because it is not recorded for which iModel it was uploaded. Uploads in progress are not counted.',
    '`complete` is false if there are more than 200,000 changesets, 1,000 segments or 500,000 blocks; the oldest are then left out.',
  ].join(' '),
  // How much is shared tells whether others exist that were derived from it, which may be in iTwins that the caller cannot see.
  access: { on: 'imodel', permission: 'imodels_manage', level: 'iModel' },
  invalid: 'Cannot get storage.',
  response: {
    status: 200,
    description: 'The storage use.',
    schema: Type.Object({
      storage: Type.Object({
        ...bytes,
        baseline: Part,
        changesets: Part,
        checkpoints: Part,
        graphics: Part,
        thumbnail: Part,
        sharedUpToIndex: Type.Integer(),
        complete: Type.Boolean(),
      }),
    }),
  },
  async handler({ access, services }) {
    const { parts, sharedUpToIndex, complete, ...total } = await storageUse(services.database, access.imodel);
    return {
      storage: {
        ...bytesOf(total),
        baseline: bytesOf(parts.baseline),
        changesets: bytesOf(parts.changesets),
        checkpoints: bytesOf(parts.checkpoints),
        graphics: bytesOf(parts.graphics),
        thumbnail: bytesOf(parts.thumbnail),
        sharedUpToIndex,
        complete,
      },
    };
  },
});

function bytesOf({ own, shared, cloneOnly }: Bytes) {
  return { ownBytes: own, sharedBytes: shared, cloneOnlyBytes: cloneOnly };
}

export const lineageRoutes: Route[] = [getLineage, getStorage];
