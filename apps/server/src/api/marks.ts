import { Type } from 'typebox';
import type { MarkKind } from '../marks/marks.ts';
import { MinimalIModel, toIModel, toMinimal } from './imodels.ts';
import { pageRequest, pagingParameters } from './paging.ts';
import { imodelRoute, itwinRoute, type Route } from './route.ts';
import { guidPattern, PageLinks } from './schemas.ts';

/** Favorites and recents differ in their words and their order. Paths: fixed words where an iModel id would be. */
const kinds = {
  favorite: { path: 'favorites', tag: 'Favorites', list: 'get-my-favorite-imodels', add: 'add-imodel-to-favorites', remove: 'remove-imodel-from-favorites', method: 'PUT', latestFirst: false },
  recent: { path: 'recents', tag: 'Recents', list: 'get-my-recently-used-imodels', add: 'add-imodel-to-recents', remove: 'remove-imodel-from-recents', method: 'POST', latestFirst: true },
} as const;

function markRoutesOf(kind: MarkKind): Route[] {
  const { path, tag, list, add, remove, method, latestFirst } = kinds[kind];
  const onOne = { on: 'imodel', permission: 'imodels_webview', level: 'iModel' } as const;
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
      response: { status: 200, description: 'A page of iModels.', schema: Type.Object({ iModels: Type.Array(MinimalIModel), _links: PageLinks }) },
      async handler({ access, caller, query, rawQuery, representation, links, services, invalid }) {
        const keys = [{ column: 'marked_imodel.marked_at', type: 'number' as const, descending: latestFirst }];
        const hidden = await services.permissions.hiddenIModels(caller, access);
        const page = await services.marks.list(caller.user.id, kind, access.itwin.id, hidden, pageRequest(query, keys, invalid));
        const dataCenter = access.itwin.data_center;
        return {
          iModels: page.items.map((row) => (representation ? toIModel(row, dataCenter, links) : toMinimal(row, dataCenter))),
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
      response: { status: 204, description: 'Added, or there already.' },
      async handler({ access, caller, services }) {
        await services.marks.add(caller.user.id, kind, access.imodel.id);
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
      response: { status: 204, description: 'Removed, or not there.' },
      async handler({ access, caller, services }) {
        await services.marks.remove(caller.user.id, kind, access.imodel.id);
      },
    }),
  ];
}

export const markRoutes: Route[] = [...markRoutesOf('favorite'), ...markRoutesOf('recent')];
