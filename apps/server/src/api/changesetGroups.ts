import { Type } from '../jsonSchema.ts';
import type { ChangesetGroupTable } from '../db/schema.ts';
import { parseGuid } from '../domain.ts';
import type { Links } from './links.ts';
import { pageRequest, pagingParameters } from './paging.ts';
import { imodelRoute, type Route } from './route.ts';
import { DescriptionSchema, emptyToNull, LinkSchema, Nullable, PageLinks, time, TimeSchema } from './schemas.ts';

const tag = 'Changeset groups';

const GroupSchema = Type.Object({
  id: Type.String(),
  state: Type.String({ enum: ['inProgress', 'completed', 'timedOut', 'forciblyClosed'] }),
  description: Nullable(Type.String()),
  creatorId: Type.String(),
  createdDateTime: TimeSchema,
  _links: Type.Object({ creator: LinkSchema }),
});
const GroupResponse = Type.Object({ changesetGroup: GroupSchema });

function toGroup(row: ChangesetGroupTable, links: Links) {
  return {
    id: row.id,
    state: row.state,
    description: row.description,
    creatorId: row.creator_id,
    createdDateTime: time(row.created_at),
    _links: { creator: links.user(row.imodel_id, row.creator_id) },
  };
}

const listGroups = imodelRoute({
  operationId: 'get-imodel-changeset-groups',
  method: 'GET',
  path: '/imodels/:iModelId/changesetgroups',
  tag,
  summary: 'List changeset groups',
  access: { on: 'imodel', permission: 'imodels_webview', level: 'iModel' },
  invalid: 'Cannot get Changeset Groups.',
  query: Type.Object(pagingParameters),
  response: {
    status: 200,
    description: 'A page of groups.',
    schema: Type.Object({ changesetGroups: Type.Array(GroupSchema), _links: PageLinks }),
  },
  async handler({ access, query, rawQuery, links, services, invalid }) {
    const { id } = access.imodel;
    const keys = [{ column: 'created_at', type: 'number' as const, descending: false }];
    const page = await services.changesetGroups.list(id, pageRequest(query, keys, invalid));
    return {
      changesetGroups: page.items.map((row) => toGroup(row, links)),
      _links: links.page(`/imodels/${id}/changesetgroups`, rawQuery, page),
    };
  },
});

const createGroup = imodelRoute({
  operationId: 'create-imodel-changeset-group',
  method: 'POST',
  path: '/imodels/:iModelId/changesetgroups',
  tag,
  summary: 'Create a changeset group',
  access: { on: 'imodel', permission: 'imodels_write', level: 'iModel' },
  invalid: 'Cannot create Changeset Group.',
  body: Type.Object({ description: Type.Optional(DescriptionSchema) }),
  bodyOptional: true,
  response: { status: 201, description: 'The group.', schema: GroupResponse },
  errors: ['iModelNotInitialized'],
  async handler({ access, caller, body, links, services }) {
    return {
      changesetGroup: toGroup(
        await services.changesetGroups.create(caller, access, emptyToNull(body.description)),
        links,
      ),
    };
  },
});

const getGroup = imodelRoute({
  operationId: 'get-imodel-changeset-group-details',
  method: 'GET',
  path: '/imodels/:iModelId/changesetgroups/:groupId',
  tag,
  summary: 'Get a changeset group',
  access: { on: 'imodel', permission: 'imodels_webview', level: 'iModel' },
  invalid: 'Cannot get Changeset Group.',
  response: { status: 200, description: 'The group.', schema: GroupResponse },
  errors: ['ChangesetGroupNotFound'],
  async handler({ access, params, links, services }) {
    return {
      changesetGroup: toGroup(
        await services.changesetGroups.get(access.imodel.id, parseGuid(params['groupId'] ?? '')),
        links,
      ),
    };
  },
});

const updateGroup = imodelRoute({
  operationId: 'update-imodel-changeset-group',
  method: 'PATCH',
  path: '/imodels/:iModelId/changesetgroups/:groupId',
  tag,
  summary: 'Complete a changeset group',
  access: { on: 'imodel', permission: 'imodels_write', level: 'iModel' },
  invalid: 'Cannot update Changeset Group.',
  body: Type.Object({ state: Type.String({ enum: ['completed'], pick: "Valid 'state' values are: 'completed'." }) }),
  response: { status: 200, description: 'The updated group.', schema: GroupResponse },
  errors: ['ChangesetGroupNotFound', 'ChangesetGroupIsClosed', 'iModelNotInitialized'],
  async handler({ access, caller, params, links, services }) {
    return {
      changesetGroup: toGroup(
        await services.changesetGroups.complete(caller, access, parseGuid(params['groupId'] ?? '')),
        links,
      ),
    };
  },
});

export const changesetGroupRoutes: Route[] = [listGroups, createGroup, getGroup, updateGroup];
