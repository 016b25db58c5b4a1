import { Type } from '../jsonSchema.ts';
import type { PersonalListKind } from '../favorites/favorites.ts';
import { MinimalIModel, toIModel, toMinimal } from './imodels.ts';
import type { SortKey } from '../db/keysetPaging.ts';
import { pageRequest, pagingParameters } from './paging.ts';
import { iTwinFilterOf, iTwinListParameters, ITwinListResponse, listedITwins, requireSelectable } from './itwins.ts';
import { callerRoute, imodelRoute, itwinRoute, type Route } from './route.ts';
import { guidPattern, PageLinks } from './schemas.ts';

/** Favorites and recents differ in their words and their order. Paths: fixed words where an iModel id would be. */
const kinds = {
  favorite: {
    path: 'favorites',
    tag: 'Favorites',
    list: 'get-my-favorite-imodels',
    add: 'add-imodel-to-favorites',
    remove: 'remove-imodel-from-favorites',
    method: 'PUT',
    latestFirst: false,
  },
  recent: {
    path: 'recents',
    tag: 'Recents',
    list: 'get-my-recently-used-imodels',
    add: 'add-imodel-to-recents',
    remove: 'remove-imodel-from-recents',
    method: 'POST',
    latestFirst: true,
  },
} as const;

/** Ordered by time, then by id. */
const byTime = (descending: boolean, table: 'imodel' | 'itwin'): SortKey[] => [
  { column: 'mark.marked_at', type: 'number', descending },
  { column: `${table}.id`, type: 'text', descending },
];

function favoriteRoutesOf(kind: PersonalListKind): Route[] {
  const { path, tag, list, add, remove, method, latestFirst } = kinds[kind];
  const onOne = {
    on: 'imodel',
    permission: 'imodels_webview',
    level: 'iModel',
    beforeInitialized: 'It changes a list of the caller, not the iModel.',
  } as const;
  return [
    itwinRoute({
      operationId: list,
      method: 'GET',
      path: `/imodels/${path}`,
      tag,
      summary: `The caller's ${path} in an iTwin${latestFirst ? ', the latest first' : ''}`,
      access: { on: 'itwin', permission: 'imodels_webview', from: 'query' },
      invalid: 'Cannot get iModels.',
      prefer: true,
      query: Type.Object({ iTwinId: Type.String({ pattern: guidPattern }), ...pagingParameters }),
      response: {
        status: 200,
        description: 'A page of iModels.',
        schema: Type.Object({ iModels: Type.Array(MinimalIModel), _links: PageLinks }),
      },
      async handler({ access, caller, query, rawQuery, representation, links, services, invalid }) {
        const keys = byTime(latestFirst, 'imodel');
        const listed = await services.permissions.listedIModels(caller, access);
        const page = await services.favorites.iModels(
          caller.user.id,
          kind,
          access.itwin.id,
          listed,
          pageRequest(query, keys, invalid),
        );
        const dataCenter = access.itwin.data_center;
        return {
          iModels: page.items.map((row) =>
            representation ? toIModel(row, dataCenter, links) : toMinimal(row, dataCenter),
          ),
          _links: links.page(`/imodels/${path}`, rawQuery, page),
        };
      },
    }),
    imodelRoute({
      operationId: add,
      method,
      path: `/imodels/${path}/:iModelId`,
      tag,
      summary: `Add an iModel to the caller's ${path}`,
      access: onOne,
      invalid: `Cannot add iModel to ${path}.`,
      response: { status: 204, description: 'Added, or already present.' },
      async handler({ access, caller, services }) {
        await services.favorites.add(caller.user.id, kind, 'imodel', access.imodel.id);
      },
    }),
    imodelRoute({
      operationId: remove,
      method: 'DELETE',
      path: `/imodels/${path}/:iModelId`,
      tag,
      summary: `Remove an iModel from the caller's ${path}`,
      access: onOne,
      invalid: `Cannot remove iModel from ${path}.`,
      response: { status: 204, description: 'Removed, or not present.' },
      async handler({ access, caller, services }) {
        await services.favorites.remove(caller.user.id, kind, 'imodel', access.imodel.id);
      },
    }),
  ];
}

/** The same for iTwins; there both are added by POST. */
function iTwinFavoriteRoutesOf(kind: PersonalListKind): Route[] {
  const { path, tag, latestFirst } = kinds[kind];
  const onOne = { on: 'itwin', permission: 'member', from: 'path' } as const;
  return [
    callerRoute({
      operationId: kind === 'favorite' ? 'get-my-favorite-itwins' : 'get-my-recently-used-itwins',
      method: 'GET',
      path: `/itwins/${path}`,
      tag,
      summary: `The caller's iTwins among the ${path}${latestFirst ? ', the latest first' : ''}`,
      access: { on: 'caller' },
      invalid: 'Cannot query iTwins.',
      prefer: true,
      query: Type.Object(iTwinListParameters),
      response: { status: 200, description: 'A page of iTwins.', schema: ITwinListResponse },
      async handler(call) {
        const { caller, query, rawQuery, links, services, invalid } = call;
        requireSelectable(query, invalid);
        const page = await services.favorites.iTwins(
          caller,
          kind,
          iTwinFilterOf(query, call),
          pageRequest(query, byTime(latestFirst, 'itwin'), invalid),
        );
        return {
          iTwins: await listedITwins(page.items, query, call),
          _links: links.page(`/itwins/${path}`, rawQuery, page),
        };
      },
    }),
    itwinRoute({
      operationId: `add-itwin-to-my-${path}`,
      method: 'POST',
      path: `/itwins/${path}/:iTwinId`,
      tag,
      summary: `Add an iTwin to the caller's ${path}`,
      access: onOne,
      invalid: 'Cannot update iTwin.',
      response: { status: 204, description: 'Added, or already present.' },
      async handler({ access, caller, services }) {
        await services.favorites.add(caller.user.id, kind, 'itwin', access.itwin.id);
      },
    }),
    itwinRoute({
      operationId: `remove-itwin-from-my-${path}`,
      method: 'DELETE',
      path: `/itwins/${path}/:iTwinId`,
      tag,
      summary: `Remove an iTwin from the caller's ${path}`,
      access: onOne,
      invalid: 'Cannot update iTwin.',
      response: { status: 204, description: 'Removed, or not present.' },
      async handler({ access, caller, services }) {
        await services.favorites.remove(caller.user.id, kind, 'itwin', access.itwin.id);
      },
    }),
  ];
}

export const favoriteRoutes: Route[] = [
  ...favoriteRoutesOf('favorite'),
  ...favoriteRoutesOf('recent'),
  ...iTwinFavoriteRoutesOf('favorite'),
  ...iTwinFavoriteRoutesOf('recent'),
];
