import { Type } from '../jsonSchema.ts';
import type { IModelTable } from '../db/schema.ts';
import type { BaselineState } from '../domain.ts';
import type { Baseline } from '../baselines/baselines.ts';
import { ApiError } from '../errors.ts';
import type { Links, StorageLink } from './links.ts';
import { imodelRoute, type Route } from './route.ts';
import { LinkSchema, Nullable, StorageLinkSchema } from './schemas.ts';

const tag = 'Baseline';

const BaselineResponse = Type.Object({
  baselineFile: Type.Object({
    id: Type.String(),
    displayName: Type.String(),
    fileSize: Type.Integer({ description: 'Bytes.' }),
    state: Type.String({
      enum: ['waitingForFile', 'initializationScheduled', 'initialized', 'initializationFailed', 'fileIsBriefcase'],
    }),
    _links: Type.Object({ creator: LinkSchema, download: Nullable(StorageLinkSchema) }),
  }),
});

function toBaselineFile(
  imodel: IModelTable,
  baseline: Baseline,
  links: Links,
  options: { state?: BaselineState; download: StorageLink | null; size?: number },
) {
  const fileName = `${imodel.id}.bim`;
  return {
    baselineFile: {
      id: imodel.id,
      displayName: fileName,
      fileSize: options.size ?? baseline.blob.size,
      state: options.state ?? baseline.state,
      _links: { creator: links.user(imodel.id, imodel.creator_id), download: options.download },
    },
  };
}

const getBaseline = imodelRoute({
  operationId: 'get-imodel-baseline-file-details',
  method: 'GET',
  path: '/imodels/:iModelId/baselinefile',
  tag,
  summary: 'Get the baseline file',
  access: {
    on: 'imodel',
    permission: 'imodels_webview',
    level: 'iModel',
    also: 'The download link is null below `imodels_read`.',
    beforeInitialized: 'It tells how the upload of the own file goes.',
  },
  invalid: 'Cannot get Baseline File.',
  response: { status: 200, description: 'The baseline file.', schema: BaselineResponse },
  errors: ['BaselineFileNotFound'],
  async handler({ access, links, services }) {
    // A clone, a fork and a templated iModel refer to the file of their source until they are initialized.
    if (
      access.imodel.state !== 'initialized' &&
      (await services.iModels.createOperation(access.imodel.id)).kind !== 'create'
    )
      throw new ApiError('BaselineFileNotFound');
    const baseline = await services.baselines.get(access.imodel.baseline_id);
    const mayDownload = access.imodel.state === 'initialized' && access.permissions.has('imodels_read');
    if (!mayDownload) return toBaselineFile(access.imodel, baseline, links, { download: null });
    // Its checkpoint is the same file with the ids of this iModel; before there is one, the file as it was uploaded.
    const checkpoint = await services.checkpoints.nearest(access.imodel, 0);
    const fileName = `${access.imodel.id}.bim`;
    if (checkpoint?.file_id == null)
      return toBaselineFile(access.imodel, baseline, links, {
        download: await links.download({ blobId: baseline.blob.id, fileName }),
      });
    const download = links.modelFile(checkpoint.file_id, access.imodel.id, fileName);
    return toBaselineFile(access.imodel, baseline, links, {
      download,
      size: await services.checkpoints.sizeOf(checkpoint.file_id),
    });
  },
});

const completeBaseline = imodelRoute({
  operationId: 'complete-imodel-baseline-file-upload',
  method: 'POST',
  path: '/imodels/:iModelId/baselinefile',
  tag,
  summary: 'Complete the upload of the baseline file',
  access: {
    on: 'imodel',
    permission: 'imodels_manage',
    level: 'iTwin',
    beforeInitialized: 'It is what initializes the iModel.',
  },
  invalid: 'Cannot complete Baseline File upload.',
  // Some clients send `{}`, others no body; both mean the same.
  body: Type.Object({}),
  bodyOptional: true,
  response: {
    status: 200,
    description: 'The baseline file; read it again, or the create operation, to see the result.',
    schema: BaselineResponse,
  },
  errors: ['FileNotFound', 'BaselineFileNotFound', 'DataConflict'],
  async handler({ access, caller, links, services }) {
    const baseline = await services.baselines.completeUpload(caller, access.imodel);
    // Rule of the API: this answer says "scheduled", whatever has been done already.
    return toBaselineFile(access.imodel, baseline, links, { state: 'initializationScheduled', download: null });
  },
});

export const baselineRoutes: Route[] = [getBaseline, completeBaseline];
