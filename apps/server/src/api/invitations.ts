import { Type } from '../jsonSchema.ts';
import { ApiError } from '../errors.ts';
import { pathOf } from './accessControl.ts';
import { idOf, managesMembers, NoInvitations, seenByMembers } from './accessControlParts.ts';
import { pagingParameters } from './paging.ts';
import { itwinRoute, type Route } from './route.ts';
import { PageLinks } from './schemas.ts';

const tag = 'Access control';
const invitationsPath = '/accesscontrol/itwins/:iTwinId/members/invitations';
const groupInvitationsPath = '/accesscontrol/itwins/:iTwinId/groups/:groupId/invitations';

const InvitationsResponse = Type.Object({ invitations: NoInvitations, _links: PageLinks });
const noPage = { items: [], next: undefined, prev: undefined };

const listInvitations = itwinRoute({
  operationId: 'get-itwin-member-invitations',
  method: 'GET',
  path: invitationsPath,
  tag,
  summary: 'List invitations; always empty',
  description: 'This server sends no invitations; it refuses to add unknown users.',
  access: seenByMembers,
  invalid: 'Cannot get Invitations.',
  query: Type.Object(pagingParameters),
  response: { status: 200, description: 'No invitations.', schema: InvitationsResponse },
  async handler({ rawQuery, params, links }) {
    return { invitations: [], _links: links.page(pathOf(invitationsPath, params), rawQuery, noPage) };
  },
});

const getInvitation = itwinRoute({
  operationId: 'get-itwin-member-invitation',
  method: 'GET',
  path: `${invitationsPath}/:invitationId`,
  tag,
  summary: 'Get an invitation; never found',
  access: seenByMembers,
  invalid: 'Cannot get Invitation.',
  response: { status: 200, description: 'Never returned.', schema: Type.Object({}) },
  errors: ['InvitationNotFound'],
  handler: () => Promise.reject(new ApiError('InvitationNotFound')),
});

const deleteInvitation = itwinRoute({
  operationId: 'delete-itwin-member-invitation',
  method: 'DELETE',
  path: `${invitationsPath}/:invitationId`,
  tag,
  summary: 'Delete an invitation; never found',
  access: managesMembers,
  invalid: 'Cannot delete Invitation.',
  response: { status: 204, description: 'Never returned.' },
  errors: ['InvitationNotFound'],
  handler: () => Promise.reject(new ApiError('InvitationNotFound')),
});

const listGroupInvitations = itwinRoute({
  operationId: 'get-itwin-group-member-invitations',
  method: 'GET',
  path: groupInvitationsPath,
  tag,
  summary: 'List invitations to a group; always empty',
  access: seenByMembers,
  invalid: 'Cannot get Invitations.',
  query: Type.Object(pagingParameters),
  response: { status: 200, description: 'No invitations.', schema: InvitationsResponse },
  errors: ['GroupNotFound'],
  async handler({ access, rawQuery, params, links, services }) {
    await services.groups.get(access.itwin.id, idOf(params['groupId']));
    return { invitations: [], _links: links.page(pathOf(groupInvitationsPath, params), rawQuery, noPage) };
  },
});

const deleteGroupInvitation = itwinRoute({
  operationId: 'delete-itwin-group-member-invitation',
  method: 'DELETE',
  path: `${groupInvitationsPath}/:invitationId`,
  tag,
  summary: 'Delete an invitation to a group; never found',
  access: managesMembers,
  invalid: 'Cannot delete Invitation.',
  response: { status: 204, description: 'Never returned.' },
  errors: ['InvitationNotFound'],
  handler: () => Promise.reject(new ApiError('InvitationNotFound')),
});

export const invitationRoutes: Route[] = [
  listInvitations,
  getInvitation,
  deleteInvitation,
  listGroupInvitations,
  deleteGroupInvitation,
];
