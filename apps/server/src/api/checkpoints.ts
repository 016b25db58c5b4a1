import { Type } from 'typebox';
import { parseChangesetRef, parseGuid } from '../domain.ts';
import { imodelRoute, type Route } from './route.ts';
import { Nullable } from './schemas.ts';

const CheckpointResponse = Type.Object({
  checkpoint: Type.Object({
    changesetIndex: Type.Integer(),
    changesetId: Nullable(Type.String()),
    state: Type.String({ enum: ['successful', 'scheduled', 'failed', 'notGenerated'] }),
    size: Type.Integer(),
    dbName: Type.String(),
    directoryAccessInfo: Type.Null(),
    containerAccessInfo: Type.Null(),
    _links: Type.Object({ download: Type.Null() }),
  }),
});
/** What the three reads have in common. */
const checkpointRead = {
  method: 'GET',
  tag: 'Checkpoints',
  description: 'This server does not generate checkpoints yet: the state is always `notGenerated`.',
  access: { on: 'imodel', permission: 'imodels_read', level: 'iModel' },
  invalid: 'Cannot get Checkpoint.',
  response: { status: 200, description: 'The checkpoint.', schema: CheckpointResponse },
} as const;

/** Rule of the wire: `directoryAccessInfo` is an explicit null until a checkpoint is readable; the baseline's id is null. */
function toCheckpoint(changeset: { index: number; id: string }) {
  const baseline = changeset.index === 0;
  return {
    checkpoint: {
      changesetIndex: changeset.index,
      changesetId: baseline ? null : changeset.id,
      state: 'notGenerated',
      size: 0,
      dbName: baseline ? 'BASELINE.bim' : `${changeset.id}.bim`,
      directoryAccessInfo: null,
      containerAccessInfo: null,
      _links: { download: null },
    },
  };
}

const getChangesetCheckpoint = imodelRoute({
  ...checkpointRead,
  operationId: 'get-changeset-checkpoint',
  path: '/imodels/:iModelId/changesets/:changeset/checkpoint',
  summary: 'Get the checkpoint of a changeset; index 0 is the baseline',
  errors: ['ChangesetNotFound'],
  async handler({ access, params, services }) {
    const ref = parseChangesetRef(params.changeset ?? '');
    if (ref !== undefined && 'index' in ref && ref.index === 0) return toCheckpoint({ index: 0, id: '' });
    return toCheckpoint(await services.changesets.get(access.imodel, ref));
  },
});

const getLatestCheckpoint = imodelRoute({
  ...checkpointRead,
  operationId: 'get-briefcase-checkpoint',
  path: '/imodels/:iModelId/briefcases/checkpoint',
  summary: 'Get the latest checkpoint',
  async handler({ access }) {
    return toCheckpoint({ index: access.imodel.head_index, id: access.imodel.head_changeset_id });
  },
});

const getNamedVersionCheckpoint = imodelRoute({
  ...checkpointRead,
  operationId: 'get-named-version-checkpoint',
  path: '/imodels/:iModelId/namedversions/:namedVersionId/checkpoint',
  summary: 'Get the checkpoint of a named version',
  errors: ['NamedVersionNotFound'],
  async handler({ access, params, services }) {
    const version = await services.namedVersions.get(access.imodel.id, parseGuid(params.namedVersionId ?? ''));
    return toCheckpoint({ index: version.changeset_index, id: version.changeset_id });
  },
});

export const checkpointRoutes: Route[] = [getChangesetCheckpoint, getNamedVersionCheckpoint, getLatestCheckpoint];
