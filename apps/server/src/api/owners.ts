import { Type } from '../jsonSchema.ts';
import { pathOf } from './accessControl.ts';
import { byText, idOf, refusingUnknownUsers, seenByMembers, showingUsers, UserSchema } from './accessControlParts.ts';
import { pageRequest, pagingParameters } from './paging.ts';
import { itwinRoute, type Route } from './route.ts';
import { PageLinks, ReferenceText } from './schemas.ts';

const tag = 'Access control';
const ownersPath = '/accesscontrol/itwins/:iTwinId/members/owners';

const listOwners = itwinRoute({
  operationId: 'get-itwin-owners',
  method: 'GET',
  path: ownersPath,
  tag,
  summary: 'List the owners of an iTwin, who have all permissions on it',
  access: seenByMembers,
  invalid: 'Cannot get Owners.',
  query: Type.Object(pagingParameters),
  response: {
    status: 200,
    description: 'A page of owners.',
    schema: Type.Object({ members: Type.Array(UserSchema), _links: PageLinks }),
  },
  async handler(call) {
    const { access, query, rawQuery, params, links, services, invalid } = call;
    const page = await services.groups.owners(
      access.itwin.id,
      pageRequest(query, [byText('email'), byText('id')], invalid),
    );
    return {
      members: page.items.map(await showingUsers(call, page.items)),
      _links: links.page(pathOf(ownersPath, params), rawQuery, page),
    };
  },
});

const addOwner = itwinRoute({
  operationId: 'add-itwin-owner',
  method: 'POST',
  path: ownersPath,
  tag,
  summary: 'Make a user an owner',
  access: { on: 'itwin', permission: 'administrator', from: 'path' },
  invalid: 'Cannot add Owner.',
  body: Type.Object({ email: ReferenceText('E-mail or id of the user.') }),
  response: {
    status: 201,
    description: 'The owner.',
    schema: Type.Object({
      member: UserSchema,
      invitation: Type.Null({ description: 'This server sends no invitations.' }),
    }),
  },
  async handler(call) {
    const { access, caller, body, services, invalid } = call;
    const owner = await refusingUnknownUsers(
      'email',
      invalid,
      services.groups.addOwner(caller, access.itwin.id, body.email),
    );
    const show = await showingUsers(call, [owner]);
    return { member: show(owner), invitation: null };
  },
});

const removeOwner = itwinRoute({
  operationId: 'remove-itwin-owner',
  method: 'DELETE',
  path: `${ownersPath}/:ownerId`,
  tag,
  summary: 'Remove an owner; the last owner cannot be removed',
  access: { on: 'itwin', permission: 'administrator', from: 'path' },
  invalid: 'Cannot remove Owner.',
  response: { status: 204, description: 'Removed.' },
  errors: ['OwnerNotFound', 'LastOwner'],
  async handler({ access, caller, params, services }) {
    await services.groups.removeOwner(caller, access.itwin.id, idOf(params['ownerId']));
  },
});

export const ownerRoutes: Route[] = [listOwners, addOwner, removeOwner];
