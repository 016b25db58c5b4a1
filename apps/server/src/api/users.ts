import { Type } from '../jsonSchema.ts';
import type { UserAccountTable } from '../db/schemaOfITwins.ts';
import { ApiError } from '../errors.ts';
import type { UserStatistics } from '../users/users.ts';
import type { Links } from './links.ts';
import { pageRequest, pagingParameters, sortKeys } from './paging.ts';
import { imodelRoute, type Route } from './route.ts';
import { LinkSchema, Nullable, PageLinks, time, TimeSchema } from './schemas.ts';

const tag = 'Users';

const MinimalUser = Type.Object({
  id: Type.String(),
  displayName: Type.String(),
  _links: Type.Object({ self: LinkSchema }),
});
const FullUser = Type.Object({
  ...MinimalUser.properties,
  givenName: Type.String(),
  surname: Type.String(),
  email: Type.String(),
  statistics: Type.Object({
    pushedChangesetsCount: Type.Integer(),
    lastChangesetPushDate: Nullable(TimeSchema),
    createdVersionsCount: Type.Integer(),
    briefcasesCount: Type.Integer(),
    lastAccessTime: Nullable(Type.String({ format: 'date-time', description: 'To the minute.' })),
    applications: Type.Array(
      Type.Object({
        id: Type.String(),
        name: Type.String(),
        ownsLocks: Type.Boolean(),
        ownsExclusiveRootElementLock: Type.Boolean(),
      }),
    ),
  }),
});

function toMinimal(iModelId: string, row: UserAccountTable, links: Links) {
  // Names are not verified; an e-mail is present only if it was verified.
  return {
    id: row.id,
    displayName: row.email === '' ? row.id : row.email,
    _links: { self: links.user(iModelId, row.id) },
  };
}

function toFull(iModelId: string, row: UserAccountTable, statistics: UserStatistics | undefined, links: Links) {
  return {
    ...toMinimal(iModelId, row, links),
    givenName: row.given_name,
    surname: row.surname,
    email: row.email,
    statistics: {
      pushedChangesetsCount: statistics?.pushedChangesetsCount ?? 0,
      lastChangesetPushDate: statistics?.lastPushedAt == null ? null : time(statistics.lastPushedAt),
      createdVersionsCount: statistics?.createdVersionsCount ?? 0,
      briefcasesCount: statistics?.briefcasesCount ?? 0,
      lastAccessTime: statistics?.lastAccessAt == null ? null : time(statistics.lastAccessAt),
      applications: statistics?.applications ?? [],
    },
  };
}

const listUsers = imodelRoute({
  operationId: 'get-imodel-users',
  method: 'GET',
  path: '/imodels/:iModelId/users',
  tag,
  summary: 'List all users who have connected to the iModel',
  access: {
    on: 'imodel',
    permission: 'imodels_webview',
    level: 'iModel',
    personal: true,
    beforeInitialized: 'Users are its own.',
  },
  invalid: 'Cannot get Users.',
  prefer: true,
  query: Type.Object({
    $orderBy: Type.Optional(
      Type.String({ maxLength: 255, description: '`givenName`, `surname`, each with `asc` or `desc`.' }),
    ),
    ...pagingParameters,
  }),
  response: {
    status: 200,
    description: 'A page of users.',
    schema: Type.Object({ users: Type.Array(MinimalUser), _links: PageLinks }),
  },
  async handler({ access, query, rawQuery, representation, links, services, invalid }) {
    const { id } = access.imodel;
    const keys = sortKeys(
      query.$orderBy,
      { givenName: { column: 'given_name', type: 'text' }, surname: { column: 'surname', type: 'text' } },
      'givenName',
      { column: 'id', type: 'text' },
      invalid,
    );
    const page = await services.users.list(access.imodel, pageRequest(query, keys, invalid));
    const statistics = representation
      ? await services.users.statistics(
          id,
          page.items.map((row) => row.id),
        )
      : undefined;
    return {
      users: page.items.map((row) =>
        representation ? toFull(id, row, statistics?.get(row.id), links) : toMinimal(id, row, links),
      ),
      _links: links.page(`/imodels/${id}/users`, rawQuery, page),
    };
  },
});

const getUser = imodelRoute({
  operationId: 'get-imodel-user-details',
  method: 'GET',
  path: '/imodels/:iModelId/users/:userId',
  tag,
  summary: 'Get a user of the iModel',
  access: {
    on: 'imodel',
    permission: 'imodels_webview',
    level: 'iModel',
    personal: true,
    beforeInitialized: 'The link to its creator leads here.',
  },
  invalid: 'Cannot get User.',
  response: { status: 200, description: 'The user.', schema: Type.Object({ user: FullUser }) },
  errors: ['UserNotFound'],
  async handler({ access, params, links, services }) {
    const userId = params['userId'] ?? '';
    const row = userId.includes('\0') ? undefined : await services.users.findOf(access.imodel, userId);
    if (row === undefined) throw new ApiError('UserNotFound');
    const statistics = await services.users.statistics(access.imodel.id, [row.id]);
    return { user: toFull(access.imodel.id, row, statistics.get(row.id), links) };
  },
});

export const userRoutes: Route[] = [listUsers, getUser];
