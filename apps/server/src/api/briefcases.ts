import { Type } from '../jsonSchema.ts';
import { firstBriefcaseId, lastBriefcaseId } from '../briefcases/counter.ts';
import type { BriefcaseTable } from '../db/schema.ts';
import { ApiError } from '../errors.ts';
import type { Links } from './links.ts';
import { pageRequest, pagingParameters, sortKeys } from './paging.ts';
import { imodelRoute, type Route } from './route.ts';
import {
  ApplicationSchema,
  emptyToNull,
  LabelText,
  LinkSchema,
  Nullable,
  PageLinks,
  time,
  TimeSchema,
} from './schemas.ts';

const tag = 'Briefcases';

const MinimalBriefcase = Type.Object({ id: Type.String(), displayName: Type.String() });
const FullBriefcase = Type.Object({
  ...MinimalBriefcase.properties,
  briefcaseId: Type.Integer(),
  ownerId: Type.String(),
  acquiredDateTime: TimeSchema,
  fileSize: Type.Integer({ description: 'Bytes of the baseline. Deprecated by the API.' }),
  deviceName: Nullable(Type.String()),
  application: ApplicationSchema,
  _links: Type.Object({ owner: LinkSchema, checkpoint: LinkSchema }),
});
const BriefcaseResponse = Type.Object({ briefcase: FullBriefcase });

function toMinimal(row: BriefcaseTable) {
  return {
    id: String(row.briefcase_id),
    displayName: `#${row.briefcase_id}${row.device_name === null ? '' : ` ${row.device_name}`}`,
  };
}

function toFull(row: BriefcaseTable, fileSize: number, links: Links) {
  return {
    ...toMinimal(row),
    briefcaseId: row.briefcase_id,
    ownerId: row.owner_id,
    acquiredDateTime: time(row.acquired_at),
    fileSize,
    deviceName: row.device_name,
    application: { id: row.application_id, name: row.application_name },
    _links: {
      owner: links.user(row.imodel_id, row.owner_id),
      checkpoint: links.to(row.imodel_id, '/briefcases/checkpoint'),
    },
  };
}

/** Parses the briefcase id in a path; undefined if it cannot be one. */
function parseBriefcaseId(text: string): number | undefined {
  return /^\d{1,10}$/.test(text) ? Number(text) : undefined;
}

const listBriefcases = imodelRoute({
  operationId: 'get-imodel-briefcases',
  method: 'GET',
  path: '/imodels/:iModelId/briefcases',
  tag,
  summary: 'List briefcases',
  access: { on: 'imodel', permission: 'imodels_webview', level: 'iModel', personal: true },
  invalid: 'Cannot get Briefcases.',
  prefer: true,
  query: Type.Object({
    ownerId: Type.Optional(Type.String({ maxLength: 255, description: 'User id, or `me`.' })),
    $orderBy: Type.Optional(Type.String({ maxLength: 255, description: '`acquiredDateTime`, with `asc` or `desc`.' })),
    ...pagingParameters,
  }),
  response: {
    status: 200,
    description: 'A page of briefcases.',
    schema: Type.Object({ briefcases: Type.Array(MinimalBriefcase), _links: PageLinks }),
  },
  async handler({ access, caller, query, rawQuery, representation, links, services, invalid }) {
    const { id, baseline_id } = access.imodel;
    const keys = sortKeys(
      query.$orderBy,
      { acquiredDateTime: { column: 'acquired_at', type: 'number' } },
      'acquiredDateTime',
      { column: 'briefcase_id', type: 'number' },
      invalid,
    );
    const ownerId = query.ownerId === 'me' ? caller.user.id : query.ownerId;
    const page = await services.briefcases.list(id, ownerId, pageRequest(query, keys, invalid));
    const fileSize = representation ? (await services.baselines.get(baseline_id)).blob.size : 0;
    return {
      briefcases: page.items.map((row) => (representation ? toFull(row, fileSize, links) : toMinimal(row))),
      _links: links.page(`/imodels/${id}/briefcases`, rawQuery, page),
    };
  },
});

const acquireBriefcase = imodelRoute({
  operationId: 'acquire-imodel-briefcase',
  method: 'POST',
  path: '/imodels/:iModelId/briefcases',
  tag,
  summary: 'Acquire a briefcase',
  access: {
    on: 'imodel',
    permission: 'imodels_read',
    level: 'iModel',
    also: '`imodels_manage` with `minimumBriefcaseId`.',
  },
  invalid: 'Cannot acquire Briefcase.',
  body: Type.Object({
    deviceName: Type.Optional(
      Nullable(
        LabelText({
          description: 'Name of the device.',
          tooLong: "Provided 'deviceName' is not valid. The value exceeds allowed 255 characters.",
        }),
      ),
    ),
    minimumBriefcaseId: Type.Optional(
      Type.Integer({
        minimum: firstBriefcaseId,
        maximum: lastBriefcaseId,
        description:
          'Extension of this server, for imports; needs `imodels_manage`. The briefcase gets this id or a higher one, and no lower id is handed out from then on.',
        explain: `'minimumBriefcaseId' must be an integer from ${firstBriefcaseId} to ${lastBriefcaseId}.`,
      }),
    ),
  }),
  bodyOptional: true,
  response: { status: 201, description: 'The briefcase.', schema: BriefcaseResponse },
  errors: ['iModelNotInitialized'],
  async handler({ access, caller, body, links, services }) {
    if (body.minimumBriefcaseId !== undefined && !access.permissions.has('imodels_manage'))
      throw new ApiError('InsufficientPermissions');
    const row = await services.briefcases.acquire(
      caller,
      access,
      emptyToNull(body.deviceName),
      body.minimumBriefcaseId,
    );
    const { blob } = await services.baselines.get(access.imodel.baseline_id);
    return { briefcase: toFull(row, blob.size, links) };
  },
});

const getBriefcase = imodelRoute({
  operationId: 'get-imodel-briefcase-details',
  method: 'GET',
  path: '/imodels/:iModelId/briefcases/:briefcaseId',
  tag,
  summary: 'Get a briefcase',
  access: { on: 'imodel', permission: 'imodels_webview', level: 'iModel', personal: true },
  invalid: 'Cannot get Briefcase.',
  response: { status: 200, description: 'The briefcase.', schema: BriefcaseResponse },
  errors: ['BriefcaseNotFound'],
  async handler({ access, params, links, services }) {
    const row = await services.briefcases.get(access.imodel.id, parseBriefcaseId(params['briefcaseId'] ?? ''));
    const { blob } = await services.baselines.get(access.imodel.baseline_id);
    return { briefcase: toFull(row, blob.size, links) };
  },
});

const releaseBriefcase = imodelRoute({
  operationId: 'release-imodel-briefcase',
  method: 'DELETE',
  path: '/imodels/:iModelId/briefcases/:briefcaseId',
  tag,
  summary: 'Release a briefcase',
  access: {
    on: 'imodel',
    permission: 'imodels_webview',
    level: 'iModel',
    also: "`imodels_manage` for somebody else's briefcase.",
  },
  invalid: 'Cannot release Briefcase.',
  response: { status: 204, description: 'Released.' },
  errors: ['BriefcaseNotFound', 'iModelNotInitialized'],
  async handler({ access, caller, params, services }) {
    const row = await services.briefcases.get(access.imodel.id, parseBriefcaseId(params['briefcaseId'] ?? ''));
    // Rule of the API: `imodels_webview` suffices to release one's own briefcase; others require `imodels_manage`.
    if (row.owner_id !== caller.user.id && !access.permissions.has('imodels_manage'))
      throw new ApiError('InsufficientPermissions');
    await services.briefcases.release(caller, access, row);
  },
});

export const briefcaseRoutes: Route[] = [listBriefcases, acquireBriefcase, getBriefcase, releaseBriefcase];
