import { Type } from '../jsonSchema.ts';
import type { ShareTable } from '../db/schema.ts';
import { parseGuid } from '../domain.ts';
import { detail, type ApiError, type ErrorDetail } from '../errors.ts';
import { latestExpiry } from '../shares/shares.ts';
import { pageRequest, pagingParameters } from './paging.ts';
import { imodelRoute, type Route } from './route.ts';
import { NameText, PageLinks, time, TimeSchema } from './schemas.ts';

const tag = 'Shares';

const ShareSchema = Type.Object({
  id: Type.String(),
  displayName: Type.String(),
  name: Type.String(),
  expiresAt: TimeSchema,
  permission: Type.String({ enum: ['imodels_webview', 'imodels_read'] }),
  creatorId: Type.String({ description: 'The user who created the share and whose permissions it depends on.' }),
});
const ShareResponse = Type.Object({ share: ShareSchema });
const ExpiresAt = Type.String({ maxLength: 100, description: 'ISO 8601; in the future, six months away at most.' });

function toShare(row: ShareTable) {
  return {
    id: row.id,
    displayName: row.name,
    name: row.name,
    expiresAt: time(row.expires_at),
    permission: row.permission,
    creatorId: row.owner_id,
  };
}

function expiryOf(text: string, invalid: (details: ErrorDetail[]) => ApiError): number {
  const expiresAt = /^\d{4}-\d\d-\d\dT/.test(text) ? Date.parse(text) : NaN;
  const now = Date.now();
  if (expiresAt > now && expiresAt <= latestExpiry(now)) return expiresAt;
  throw invalid([
    detail.invalidValue(
      'expiresAt',
      "Provided 'expiresAt' value is not valid. It must be a time in the future, at most 6 months away.",
    ),
  ]);
}

const access = { on: 'imodel', permission: 'imodels_webview', level: 'iModel' } as const;

const createShare = imodelRoute({
  operationId: 'create-imodel-share',
  method: 'POST',
  path: '/imodels/:iModelId/shares',
  tag,
  summary: 'Create a share: a key with which anyone can view the iModel',
  description:
    'Only this response contains the key. Send it as `Authorization: Basic {shareKey}`. It never grants more than its creator can currently access by roles, ownership or the users file.',
  access: { on: 'imodel', permission: 'imodels_manage', level: 'iTwin' },
  invalid: 'Cannot create Share.',
  body: Type.Object({
    name: NameText('Name of the share.'),
    expiresAt: ExpiresAt,
    permission: Type.String({
      enum: ['imodels_webview', 'imodels_read'],
      pick: "Valid 'permission' values are: 'imodels_webview', 'imodels_read'.",
    }),
  }),
  response: {
    status: 201,
    description: 'The share, with its key.',
    schema: Type.Object({ share: Type.Object({ ...ShareSchema.properties, shareKey: Type.String() }) }),
  },
  errors: ['iModelNotInitialized'],
  async handler({ access: onIModel, caller, body, services, invalid }) {
    const expiresAt = expiryOf(body.expiresAt, invalid);
    const { share, key } = await services.shares.create(caller, onIModel, {
      name: body.name,
      permission: body.permission as ShareTable['permission'],
      expires_at: expiresAt,
    });
    return { share: { ...toShare(share), shareKey: key } };
  },
});

const listShares = imodelRoute({
  operationId: 'get-imodel-shares',
  method: 'GET',
  path: '/imodels/:iModelId/shares',
  tag,
  summary: 'List the shares of an iModel',
  description: "The caller's own shares; administrators of the iTwin see all.",
  access,
  invalid: 'Cannot get Shares.',
  query: Type.Object(pagingParameters),
  response: {
    status: 200,
    description: 'A page of shares.',
    schema: Type.Object({ shares: Type.Array(ShareSchema), _links: PageLinks }),
  },
  async handler({ access: onIModel, caller, query, rawQuery, links, services, invalid }) {
    const { imodel } = onIModel;
    const keys = [
      { column: 'created_at', type: 'number' as const, descending: false },
      { column: 'id', type: 'text' as const, descending: false },
    ];
    const page = await services.shares.list(caller, onIModel, pageRequest(query, keys, invalid));
    return { shares: page.items.map(toShare), _links: links.page(`/imodels/${imodel.id}/shares`, rawQuery, page) };
  },
});

const getShare = imodelRoute({
  operationId: 'get-imodel-share',
  method: 'GET',
  path: '/imodels/:iModelId/shares/:shareId',
  tag,
  summary: 'Get a share',
  description: "The caller's own shares; administrators of the iTwin also those of others.",
  access,
  invalid: 'Cannot get Share.',
  response: { status: 200, description: 'The share.', schema: ShareResponse },
  errors: ['ShareNotFound'],
  async handler({ access: onIModel, caller, params, services }) {
    return { share: toShare(await services.shares.get(caller, onIModel, parseGuid(params['shareId'] ?? ''))) };
  },
});

const updateShare = imodelRoute({
  operationId: 'update-imodel-share',
  method: 'PATCH',
  path: '/imodels/:iModelId/shares/:shareId',
  tag,
  summary: "Change when one of the caller's own shares expires",
  access: { ...access, also: '`imodels_manage` on the iTwin for a later end, as for a new share.' },
  invalid: 'Cannot update Share.',
  body: Type.Object({ expiresAt: ExpiresAt }),
  response: { status: 200, description: 'The updated share.', schema: ShareResponse },
  errors: ['ShareNotFound'],
  async handler({ access: onIModel, caller, params, body, services, invalid }) {
    return {
      share: toShare(
        await services.shares.changeExpiry(
          caller,
          onIModel,
          parseGuid(params['shareId'] ?? ''),
          expiryOf(body.expiresAt, invalid),
        ),
      ),
    };
  },
});

const revokeShare = imodelRoute({
  operationId: 'revoke-imodel-share',
  method: 'DELETE',
  path: '/imodels/:iModelId/shares/:shareId',
  tag,
  summary: 'Revoke a share',
  description: "The caller's own shares; administrators of the iTwin also those of others.",
  access,
  invalid: 'Cannot revoke Share.',
  response: {
    status: 204,
    description: 'Revoked: its key is invalid, and so are all links and tokens issued through it.',
  },
  errors: ['ShareNotFound'],
  async handler({ access: onIModel, caller, params, services }) {
    await services.shares.revoke(caller, onIModel, parseGuid(params['shareId'] ?? ''));
  },
});

export const shareRoutes: Route[] = [createShare, listShares, getShare, updateShare, revokeShare];
