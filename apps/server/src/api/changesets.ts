import { Type } from '../jsonSchema.ts';
import { lastBriefcaseId } from '../briefcases/counter.ts';
import type { IModelTable, PendingChangesetTable } from '../db/schema.ts';
import { parseChangesetId, parseChangesetRef } from '../domain.ts';
import { ApiError, detail } from '../errors.ts';
import { maxExtendedDataBytes } from '../changesets/extendedData.ts';
import type { Changeset } from '../changesets/changesets.ts';
import type { ChangesetSummary } from '../db/statements/listChangesets.ts';
import type { Services } from '../services.ts';
import type { Links, StorageLink } from './links.ts';
import { pageOf } from '../db/keysetPaging.ts';
import { pageRequest, pagingParameters, sortKeys } from './paging.ts';
import { imodelRoute, type Route } from './route.ts';
import {
  ApplicationSchema,
  DescriptionSchema,
  emptyToNull,
  LinkSchema,
  Nullable,
  PageLinks,
  StorageLinkSchema,
  time,
  TimeSchema,
} from './schemas.ts';

const tag = 'Changesets';

const SynchronizationInfo = Type.Object({ taskId: Type.String(), changedFiles: Nullable(Type.Array(Type.String())) });
const shared = {
  id: Type.String({ description: '40 hex digits: SHA-1 over the parent and the contents.' }),
  displayName: Type.String(),
  description: Nullable(Type.String()),
  index: Type.Integer(),
  parentId: Type.String({ description: 'Id of the changeset before it, `""` for the first.' }),
  state: Type.String({ enum: ['waitingForFile', 'fileUploaded'] }),
  containingChanges: Type.Integer({ description: 'Bit flags.' }),
  fileSize: Type.Integer({ description: 'Bytes.' }),
  briefcaseId: Type.Integer(),
  groupId: Nullable(Type.String()),
};
const MinimalChangeset = Type.Object({
  ...shared,
  creatorId: Type.String(),
  pushDateTime: TimeSchema,
  _links: Type.Object({ self: LinkSchema, creator: LinkSchema }),
});
const FullChangeset = Type.Object({
  ...MinimalChangeset.properties,
  application: Nullable(ApplicationSchema),
  synchronizationInfo: Nullable(SynchronizationInfo),
  _links: Type.Object({
    self: LinkSchema,
    creator: LinkSchema,
    namedVersion: Nullable(LinkSchema),
    currentOrPrecedingCheckpoint: Nullable(LinkSchema),
    download: Nullable(StorageLinkSchema),
  }),
});
const CreatedChangeset = Type.Object({
  ...shared,
  creatorId: Type.Null(),
  pushDateTime: Type.Null(),
  application: Type.Null(),
  synchronizationInfo: Nullable(SynchronizationInfo),
  _links: Type.Object({
    self: LinkSchema,
    creator: Type.Null(),
    namedVersion: Type.Null(),
    currentOrPrecedingCheckpoint: Type.Null(),
    upload: StorageLinkSchema,
    complete: LinkSchema,
  }),
});

/** Most bytes of JSON in a changeset's `synchronizationInfo`. The API's limit for extended data applies. */
const maxSynchronizationInfoBytes = maxExtendedDataBytes;

const path = (id: string): string => `/changesets/${id}`;
const syncInfo = (json: string | null) =>
  json === null ? null : (JSON.parse(json) as { taskId: string; changedFiles: string[] | null });

/**
 * Properties of changesets that belong to one iModel, by index. The rows of changesets themselves are shared with
 * clones.
 */
interface OwnFacts {
  groups: ReadonlyMap<number, string>;
  versions: ReadonlyMap<number, string>;
  /** Index of the last usable checkpoint at or before a changeset. */
  checkpointBefore: (index: number) => number;
}

function toMinimal(iModelId: string, row: ChangesetSummary, links: Links, { groups }: Pick<OwnFacts, 'groups'>) {
  return {
    id: row.id,
    displayName: String(row.index),
    description: row.description,
    index: row.index,
    parentId: row.parent_id,
    creatorId: row.creator_id,
    pushDateTime: time(row.pushed_at),
    state: 'fileUploaded' as const,
    containingChanges: row.containing_changes,
    fileSize: row.file_size,
    briefcaseId: row.briefcase_id,
    groupId: groups.get(row.index) ?? null,
    _links: { self: links.to(iModelId, path(row.id)), creator: links.user(iModelId, row.creator_id) },
  };
}

/** @param download Rule of the API: null without the permission `imodels_read` */
function toFull(iModelId: string, row: Changeset, links: Links, download: StorageLink | null, own: OwnFacts) {
  const version = own.versions.get(row.index);
  const minimal = toMinimal(iModelId, row, links, own);
  return {
    ...minimal,
    application: { id: row.application_id, name: row.application_name },
    synchronizationInfo: syncInfo(row.synchronization_info),
    _links: {
      ...minimal._links,
      namedVersion: version === undefined ? null : links.to(iModelId, `/namedversions/${version}`),
      // Rule of the wire: every changeset has this link. Without a checkpoint it points to the one of the baseline.
      currentOrPrecedingCheckpoint: links.to(iModelId, `/changesets/${own.checkpointBefore(row.index)}/checkpoint`),
      download,
    },
  };
}

const fileOf = (row: Changeset) => ({ blobId: row.blob_id, fileName: `${row.id}.cs` });

/** The lowest and the highest index of changesets that are in the order of their indexes, or in reverse. */
function spanOf(rows: readonly { index: number }[]): [number, number] {
  const ends = [rows[0]?.index ?? 0, rows.at(-1)?.index ?? 0];
  return [Math.min(...ends), Math.max(...ends)];
}

async function ownFacts(
  { changesetGroups, namedVersions, checkpoints }: Services,
  imodel: IModelTable,
  rows: readonly { index: number }[],
): Promise<OwnFacts> {
  if (rows.length === 0) return { groups: new Map(), versions: new Map(), checkpointBefore: () => 0 };
  const [first, last] = spanOf(rows);
  const [groups, versions, checkpointBefore] = await Promise.all([
    changesetGroups.ofChangesets(imodel.id, first, last),
    namedVersions.onChangesets(imodel.id, first, last),
    checkpoints.preceding(imodel, first, last),
  ]);
  return { groups, versions, checkpointBefore };
}

const listChangesets = imodelRoute({
  operationId: 'get-imodel-changesets',
  method: 'GET',
  path: '/imodels/:iModelId/changesets',
  tag,
  summary: 'List changesets',
  access: {
    on: 'imodel',
    permission: 'imodels_webview',
    level: 'iModel',
    also: 'Download links are null below `imodels_read`.',
  },
  invalid: 'Cannot get Changesets.',
  prefer: true,
  query: Type.Object({
    afterIndex: Type.Optional(
      Type.Integer({
        minimum: 0,
        maximum: Number.MAX_SAFE_INTEGER,
        description: 'Only later ones.',
        explain: "'afterIndex' must be a non-negative integer.",
      }),
    ),
    lastIndex: Type.Optional(
      Type.Integer({
        minimum: 0,
        maximum: Number.MAX_SAFE_INTEGER,
        description: 'Only up to this one.',
        explain: "'lastIndex' must be a non-negative integer.",
      }),
    ),
    $orderBy: Type.Optional(Type.String({ maxLength: 255, description: '`index`, with `asc` or `desc`.' })),
    ...pagingParameters,
  }),
  response: {
    status: 200,
    description: 'A page of changesets.',
    schema: Type.Object({ changesets: Type.Array(MinimalChangeset), _links: PageLinks }),
  },
  async handler({ access, query, rawQuery, representation, links, services, invalid }) {
    const index = { column: 'index', type: 'number' as const };
    const request = pageRequest(query, sortKeys(query.$orderBy, { index }, 'index', index, invalid), invalid);
    const descending = request.keys[0]?.descending ?? false;
    const { cursor, top, skip } = request;
    let first = (query.afterIndex ?? 0) + 1;
    let last = query.lastIndex ?? Number.MAX_SAFE_INTEGER;
    const backward = cursor?.backward ?? false;
    if (cursor !== undefined) {
      const at = cursor.values[0] as number;
      if (descending !== backward) last = Math.min(last, at - 1);
      else first = Math.max(first, at + 1);
    }
    const range = { first, last, top, skip: skip ?? 0, descending: descending !== backward };
    const id = access.imodel.id;
    const listPath = `/imodels/${id}/changesets`;
    const indexOf = (row: { index: number }): number => row.index;
    if (!representation) {
      const page = pageOf(await services.changesets.listSummaries(access.imodel, range), request, indexOf);
      const groups = await services.changesetGroups.ofChangesets(id, ...spanOf(page.items));
      return {
        changesets: page.items.map((row) => toMinimal(id, row, links, { groups })),
        _links: links.page(listPath, rawQuery, page),
      };
    }
    const { rows, fitting } = await services.changesets.list(access.imodel, range);
    const page = pageOf(rows, request, indexOf, fitting);
    const own = await ownFacts(services, access.imodel, page.items);
    const downloads = access.permissions.has('imodels_read')
      ? await links.downloads(page.items.map(fileOf))
      : undefined;
    return {
      changesets: page.items.map((row, n) => toFull(id, row, links, downloads?.[n] ?? null, own)),
      _links: links.page(listPath, rawQuery, page),
    };
  },
});

const getChangeset = imodelRoute({
  operationId: 'get-imodel-changeset-details',
  method: 'GET',
  path: '/imodels/:iModelId/changesets/:changeset',
  tag,
  summary: 'Get a changeset by id or index',
  access: {
    on: 'imodel',
    permission: 'imodels_webview',
    level: 'iModel',
    also: 'The download link is null below `imodels_read`.',
  },
  invalid: 'Cannot get Changeset.',
  response: { status: 200, description: 'The changeset.', schema: Type.Object({ changeset: FullChangeset }) },
  errors: ['ChangesetNotFound'],
  async handler({ access, params, links, services }) {
    const row = await services.changesets.get(access.imodel, parseChangesetRef(params['changeset'] ?? ''));
    const own = await ownFacts(services, access.imodel, [row]);
    const download = access.permissions.has('imodels_read') ? await links.download(fileOf(row)) : null;
    return { changeset: toFull(access.imodel.id, row, links, download, own) };
  },
});

const createChangeset = imodelRoute({
  operationId: 'create-imodel-changeset',
  method: 'POST',
  path: '/imodels/:iModelId/changesets',
  tag,
  summary: 'Begin the push of a changeset',
  description:
    'Upload its file to `_links.upload`, then complete it at `_links.complete`. One push at a time: others wait until it is complete or its lease has run out.',
  access: {
    on: 'imodel',
    permission: 'imodels_write',
    level: 'iModel',
    also: "The briefcase must be the caller's own; `imodels_manage` with `recordedBriefcaseId`.",
  },
  invalid: 'Cannot create Changeset.',
  body: Type.Object({
    id: Type.String({ pattern: '^[0-9a-fA-F]{40}$', explain: "'id' must be 40 hexadecimal digits." }),
    parentId: Type.Optional(
      Nullable(Type.String({ pattern: '^([0-9a-fA-F]{40})?$', description: 'Latest changeset; `""` for the first.' })),
    ),
    briefcaseId: Type.Integer({
      minimum: 1,
      maximum: 2_147_483_647,
      explain: "'briefcaseId' must be a positive integer value.",
    }),
    recordedBriefcaseId: Type.Optional(
      Nullable(
        Type.Integer({
          minimum: 0,
          maximum: lastBriefcaseId,
          description:
            'Extension of this server, for imports; needs `imodels_manage`. The changeset is kept under this briefcase id, the one that made it elsewhere, and not under `briefcaseId`, which must be higher. There is no briefcase of that id here: asking for it answers 404.',
          explain: `'recordedBriefcaseId' must be an integer from 0 to ${lastBriefcaseId}.`,
        }),
      ),
    ),
    fileSize: Type.Integer({
      minimum: 0,
      maximum: Number.MAX_SAFE_INTEGER,
      description: 'Bytes.',
      explain: "'fileSize' must be a non-negative integer value.",
    }),
    description: Type.Optional(DescriptionSchema),
    containingChanges: Type.Optional(
      Nullable(
        Type.Integer({
          minimum: 0,
          maximum: 127,
          description:
            'Bit flags: 1 Schema, 2 Definition, 4 SpatialData, 8 SheetsAndDrawings, 16 ViewsAndModels, 32 GlobalProperties, 64 SchemaSync.',
          explain: "'containingChanges' must be a sum of the flags 1, 2, 4, 8, 16, 32 and 64.",
        }),
      ),
    ),
    groupId: Type.Optional(Nullable(Type.String({ maxLength: 255 }))),
    synchronizationInfo: Type.Optional(
      Nullable(
        Type.Object({
          taskId: Type.String({ minLength: 1, maxLength: 255 }),
          changedFiles: Type.Optional(Nullable(Type.Array(Type.String({ maxLength: 1000 }), { maxItems: 1000 }))),
        }),
      ),
    ),
  }),
  response: {
    status: 201,
    description: 'The changeset to be uploaded.',
    schema: Type.Object({ changeset: CreatedChangeset }),
  },
  errors: [
    'BriefcaseNotFound',
    'ChangesetGroupNotFound',
    'ChangesetGroupIsClosed',
    'ChangesetExists',
    'ConflictWithAnotherUser',
    'NewerChangesExist',
    'iModelNotInitialized',
  ],
  async handler({ access, caller, body, links, services, invalid }) {
    const { synchronizationInfo: info } = body;
    const synchronizationInfo =
      info == null ? null : JSON.stringify({ taskId: info.taskId, changedFiles: info.changedFiles ?? null });
    if (synchronizationInfo !== null && Buffer.byteLength(synchronizationInfo) > maxSynchronizationInfoBytes)
      throw invalid([
        detail.invalidValue(
          'synchronizationInfo',
          `Provided 'synchronizationInfo' value is not valid. It cannot be longer than ${maxSynchronizationInfoBytes} bytes.`,
        ),
      ]);
    const largest = services.quotas.largest('changeset');
    if (largest !== null && body.fileSize > largest)
      throw invalid([
        detail.invalidValue(
          'fileSize',
          `Provided 'fileSize' value is not valid. 'fileSize' cannot be larger than ${largest} bytes.`,
        ),
      ]);
    const recordedBriefcaseId = body.recordedBriefcaseId ?? null;
    if (recordedBriefcaseId !== null && !access.permissions.has('imodels_manage'))
      throw new ApiError('InsufficientPermissions');
    const { blobId, pending } = await services.changesets.begin(caller, access, {
      id: body.id.toLowerCase(),
      parentId: (body.parentId ?? '').toLowerCase(),
      briefcaseId: body.briefcaseId,
      recordedBriefcaseId,
      fileSize: body.fileSize,
      description: emptyToNull(body.description),
      containingChanges: body.containingChanges ?? 0,
      synchronizationInfo,
      groupId: body.groupId ?? null,
    });
    const upload = await links.upload(blobId, `${pending.changeset_id}.cs`);
    return {
      changeset: toCreated(access.imodel.id, access.imodel.head_index + 1, pending, body.fileSize, upload, links),
    };
  },
});

function toCreated(
  iModelId: string,
  expectedIndex: number,
  pending: PendingChangesetTable,
  fileSize: number,
  upload: StorageLink,
  links: Links,
) {
  const self = links.to(iModelId, path(pending.changeset_id));
  return {
    id: pending.changeset_id,
    displayName: String(expectedIndex),
    description: pending.description,
    // Rule of the API: the index is assigned when the push completes.
    index: 0,
    parentId: pending.parent_id,
    state: 'waitingForFile',
    containingChanges: pending.containing_changes,
    fileSize,
    briefcaseId: pending.recorded_briefcase_id ?? pending.briefcase_id,
    groupId: pending.group_id,
    creatorId: null,
    pushDateTime: null,
    application: null,
    synchronizationInfo: syncInfo(pending.synchronization_info),
    _links: {
      self,
      creator: null,
      namedVersion: null,
      currentOrPrecedingCheckpoint: null,
      upload,
      complete: self,
    },
  };
}

const updateChangeset = imodelRoute({
  operationId: 'update-imodel-changeset',
  method: 'PATCH',
  path: '/imodels/:iModelId/changesets/:changeset',
  tag,
  summary: 'Complete the push of a changeset',
  access: {
    on: 'imodel',
    permission: 'imodels_write',
    level: 'iModel',
    also: "The briefcase must be the caller's own.",
  },
  invalid: 'Cannot update Changeset.',
  body: Type.Object({
    state: Type.String({ enum: ['fileUploaded'], explain: "Should be set to 'fileUploaded'." }),
    briefcaseId: Type.Integer({
      minimum: 1,
      maximum: 2_147_483_647,
      explain: "'briefcaseId' must be a positive integer value.",
    }),
  }),
  response: {
    status: 200,
    description: 'The changeset, with its index.',
    schema: Type.Object({ changeset: FullChangeset }),
  },
  errors: [
    'BriefcaseNotFound',
    'ChangesetNotFound',
    'FileNotFound',
    'ChangesetExists',
    'ConflictWithAnotherUser',
    'DataConflict',
    'NewerChangesExist',
    'iModelNotInitialized',
  ],
  async handler({ access, caller, params, body, links, services }) {
    const row = await services.changesets.complete(
      caller,
      access,
      parseChangesetId(params['changeset'] ?? ''),
      body.briefcaseId,
    );
    const full = toFull(access.imodel.id, row, links, null, await ownFacts(services, access.imodel, [row]));
    // Rule of the wire: these are null in this answer, even if later reads return values.
    return {
      changeset: {
        ...full,
        synchronizationInfo: null,
        _links: { ...full._links, namedVersion: null, currentOrPrecedingCheckpoint: null, download: null },
      },
    };
  },
});

export const changesetRoutes: Route[] = [listChangesets, getChangeset, createChangeset, updateChangeset];
