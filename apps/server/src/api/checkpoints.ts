import { Type } from '../jsonSchema.ts';
import { checkpointed, databaseName } from '../checkpoints/checkpoints.ts';
import { containerOf } from '../checkpoints/containers.ts';
import type { CheckpointTable, IModelTable } from '../db/schema.ts';
import { type Config, minContainerSeconds } from '../config.ts';
import { parseChangesetRef, parseGuid, type Caller } from '../domain.ts';
import type { Services } from '../services.ts';
import { account } from '../storage/signedLinks.ts';
import type { Links } from './links.ts';
import { imodelRoute, type Route } from './route.ts';
import { Nullable, StorageLinkSchema } from './schemas.ts';

const DirectoryAccess = Type.Object({
  baseUrl: Type.String({ description: 'Base URL of the containers.' }),
  storage: Type.String(),
  baseDirectory: Type.String({ description: 'Container of this iModel, one for all its checkpoints.' }),
  storageType: Type.String({ enum: ['azure'] }),
  azure: Type.Object({ sasToken: Type.String({ description: 'Query of every request; `se` is its expiry time.' }) }),
});
const ContainerAccess = Type.Object({
  account: Type.String(),
  sas: Type.String(),
  container: Type.String(),
  dbName: Type.String(),
});

const CheckpointResponse = Type.Object({
  checkpoint: Type.Object({
    changesetIndex: Type.Integer(),
    changesetId: Nullable(Type.String()),
    state: Type.String({ enum: ['successful', 'scheduled', 'failed', 'notGenerated'] }),
    size: Type.Integer({ description: 'Bytes; 0 until the checkpoint is available.' }),
    dbName: Type.String(),
    directoryAccessInfo: Nullable(DirectoryAccess),
    containerAccessInfo: Nullable(ContainerAccess),
    progress: Type.Object({ changesets: Type.Integer(), totalChangesets: Type.Integer() }),
    failureReason: Nullable(Type.String()),
    _links: Type.Object({ download: Nullable(StorageLinkSchema) }),
  }),
});
const answer = { status: 200, description: 'The checkpoint.', schema: CheckpointResponse } as const;

/** Shared by the three routes that read a checkpoint. */
const checkpointRead = {
  method: 'GET',
  tag: 'Checkpoints',
  description: '`progress` and `failureReason` are additions of this server.',
  access: { on: 'imodel', permission: 'imodels_read', level: 'iModel' },
  invalid: 'Cannot get Checkpoint.',
  response: answer,
} as const;

/** A container token ends with the token that it is given for, where iTwin.js can renew it in time. */
function containerSeconds({ checkpoints }: Config, { tokenEndsAt = Infinity }: Caller): number {
  return Math.min(
    checkpoints.tokenSeconds,
    Math.max(minContainerSeconds, Math.floor((tokenEndsAt - Date.now()) / 1000)),
  );
}

/** Rule of the wire: `directoryAccessInfo` is an explicit null until a checkpoint is readable; the baseline's id is null. */
async function toCheckpoint(
  { config, checkpoints }: Services,
  links: Links,
  caller: Caller,
  imodel: IModelTable,
  changeset: { index: number; id: string },
  found?: CheckpointTable,
) {
  const row = found ?? (await checkpoints.find(imodel, changeset.index));
  const dbName = databaseName(changeset);
  const container = containerOf(imodel.id);
  const file = row?.state === 'successful' ? row.file_id : null;
  const access = file === null ? null : links.container(container, containerSeconds(config, caller));
  return {
    checkpoint: {
      changesetIndex: changeset.index,
      changesetId: changeset.index === 0 ? null : changeset.id,
      state: row?.state ?? 'notGenerated',
      size: file === null ? 0 : await checkpoints.sizeOf(file),
      dbName,
      directoryAccessInfo: access && {
        baseUrl: access.baseUrl,
        storage: account,
        baseDirectory: container,
        storageType: 'azure',
        azure: { sasToken: access.token },
      },
      containerAccessInfo: access && { account, sas: access.token, container, dbName },
      progress: {
        changesets: row?.state === 'successful' ? row.to_apply : (row?.applied ?? 0),
        totalChangesets: row?.to_apply ?? 0,
      },
      failureReason: row?.failure_reason ?? null,
      _links: { download: file === null ? null : links.modelFile(file, imodel.id, dbName) },
    },
  };
}

const changesetPath = '/imodels/:iModelId/changesets/:changeset/checkpoint';

const getChangesetCheckpoint = imodelRoute({
  ...checkpointRead,
  operationId: 'get-changeset-checkpoint',
  path: changesetPath,
  summary: 'Get the checkpoint of a changeset; index 0 is the baseline',
  errors: ['ChangesetNotFound'],
  async handler({ access, caller, params, links, services }) {
    const { db } = services.database;
    const changeset = await checkpointed(db, access.imodel, parseChangesetRef(params['changeset'] ?? ''));
    return toCheckpoint(services, links, caller, access.imodel, changeset);
  },
});

const makeChangesetCheckpoint = imodelRoute({
  operationId: 'make-changeset-checkpoint',
  method: 'PUT',
  path: changesetPath,
  tag: 'Checkpoints',
  summary: 'Make the checkpoint of a changeset; index 0 is the baseline',
  description:
    'An extension of this server: the API has this call for named versions only. Schedules a checkpoint that does not exist or has failed, and has no effect on one that is available or scheduled; the answer holds its state. `CheckpointsNotMade` if no server of the installation makes checkpoints.',
  access: { on: 'imodel', permission: 'imodels_write', level: 'iModel' },
  invalid: 'Cannot update Checkpoint.',
  response: { ...answer, status: 202 },
  errors: ['ChangesetNotFound', 'CheckpointsNotMade'],
  async handler({ access, caller, params, links, services }) {
    const { imodel, changeset } = await services.checkpoints.request(
      caller,
      access,
      parseChangesetRef(params['changeset'] ?? ''),
    );
    return toCheckpoint(services, links, caller, imodel, changeset);
  },
});

const getLatestCheckpoint = imodelRoute({
  ...checkpointRead,
  operationId: 'get-briefcase-checkpoint',
  path: '/imodels/:iModelId/briefcases/checkpoint',
  summary: 'Get the newest usable checkpoint',
  async handler({ access, caller, links, services }) {
    const { imodel } = access;
    const row = await services.checkpoints.nearest(imodel, imodel.head_index);
    const index = row?.changeset_index ?? 0;
    return toCheckpoint(
      services,
      links,
      caller,
      imodel,
      index === 0 ? { index, id: '' } : await services.changesets.get(imodel, { index }),
      row,
    );
  },
});

const versionPath = '/imodels/:iModelId/namedversions/:namedVersionId/checkpoint';

const getNamedVersionCheckpoint = imodelRoute({
  ...checkpointRead,
  operationId: 'get-named-version-checkpoint',
  path: versionPath,
  summary: 'Get the checkpoint of a named version',
  errors: ['NamedVersionNotFound'],
  async handler({ access, caller, params, links, services }) {
    const version = await services.namedVersions.get(access.imodel.id, parseGuid(params['namedVersionId'] ?? ''));
    return toCheckpoint(services, links, caller, access.imodel, {
      index: version.changeset_index,
      id: version.changeset_id,
    });
  },
});

const restartNamedVersionCheckpoint = imodelRoute({
  operationId: 'update-named-version-checkpoint',
  method: 'PUT',
  path: versionPath,
  tag: 'Checkpoints',
  summary: 'Schedule a failed checkpoint again',
  description: 'Has no effect on a checkpoint that is available or scheduled.',
  access: { on: 'imodel', permission: 'imodels_write', level: 'iModel' },
  invalid: 'Cannot update Checkpoint.',
  response: answer,
  errors: ['NamedVersionNotFound', 'iModelNotInitialized'],
  async handler({ access, caller, params, links, services }) {
    const version = await services.namedVersions.restartCheckpoint(
      caller,
      access,
      parseGuid(params['namedVersionId'] ?? ''),
    );
    return toCheckpoint(services, links, caller, await services.iModels.get(access.imodel.id), {
      index: version.changeset_index,
      id: version.changeset_id,
    });
  },
});

export const checkpointRoutes: Route[] = [
  getChangesetCheckpoint,
  makeChangesetCheckpoint,
  getNamedVersionCheckpoint,
  restartNamedVersionCheckpoint,
  getLatestCheckpoint,
];
