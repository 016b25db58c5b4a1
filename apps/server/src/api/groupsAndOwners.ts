import { Type, type Static } from 'typebox';
import type { UserGroupTable } from '../db/schema.ts';
import { ApiError, detail, type ErrorDetail } from '../errors.ts';
import { GroupNameTakenError, UnknownUsersError, type Group, type GroupMember } from '../iTwins/groups.ts';
import { pathOf } from './accessControl.ts';
import {
  idOf,
  managesMembers,
  maxAssignments,
  NoInvitations,
  roleIds,
  RoleOfMember,
  seenByMembers,
  showingUsers,
  unknownUser,
  UserSchema,
  type CallOnITwin,
} from './accessControlParts.ts';
import { pageRequest, pagingParameters, unpagedTop } from './paging.ts';
import { itwinRoute, type Route } from './route.ts';
import { DescriptionSchema, NameText, Nullable, PageLinks, ReferenceText } from './schemas.ts';

const tag = 'Access control';
const base = '/accesscontrol/itwins/:iTwinId';

/** Some versions of the client read `userId`, the later ones `id`. */
const GroupUserSchema = Type.Object({ ...UserSchema.properties, userId: Type.String() });
const ImsGroups = Type.Array(Type.String(), {
  maxItems: 0,
  description: 'Always empty: this server knows no groups of an outside directory.',
});
const GroupSchema = Type.Object({
  id: Type.String(),
  name: Type.String(),
  description: Nullable(Type.String()),
  members: Type.Array(GroupUserSchema),
  imsGroups: ImsGroups,
});
const GroupResponse = Type.Object({ group: GroupSchema });
const GroupMemberSchema = Type.Object({
  id: Type.String(),
  groupName: Type.String(),
  groupDescription: Nullable(Type.String()),
  roles: Type.Array(RoleOfMember),
});
const GroupMembersResponse = Type.Object({ members: Type.Array(GroupMemberSchema) });

async function toGroups(call: CallOnITwin, groups: readonly Group[]): Promise<Static<typeof GroupSchema>[]> {
  const show = await showingUsers(
    call,
    groups.flatMap(({ users }) => users),
  );
  return groups.map(({ id, name, description, users }) => ({
    id,
    name,
    description,
    members: users.map((user) => ({ ...show(user), userId: user.id })),
    imsGroups: [],
  }));
}
async function toGroup(call: CallOnITwin, group: Group): Promise<Static<typeof GroupSchema>> {
  const [shown] = await toGroups(call, [group]);
  return shown as Static<typeof GroupSchema>;
}
function toGroupMember({
  group,
  roles,
}: {
  group: UserGroupTable;
  roles: GroupMember['roles'];
}): Static<typeof GroupMemberSchema> {
  return {
    id: group.id,
    groupName: group.name,
    groupDescription: group.description,
    roles: roles.map(({ id, displayName, description }) => ({ id, displayName, description })),
  };
}

/** Tells of users that nobody knows, under the property that named them. Rule of the API: for groups that is a 404. */
async function known<T>(target: string, refusal: (details: ErrorDetail[]) => ApiError, work: Promise<T>): Promise<T> {
  return work.catch((error: unknown) => {
    if (error instanceof UnknownUsersError)
      throw refusal(error.users.map((user) => detail.invalidValue(target, unknownUser(user))));
    throw error;
  });
}
const noSuchMember = (details: ErrorDetail[]): ApiError => new ApiError('TeamMemberNotFound', { details });

/** Tells that a group's name is taken. */
async function uniqueName<T>(invalid: (details: ErrorDetail[]) => ApiError, work: Promise<T>): Promise<T> {
  return work.catch((error: unknown) => {
    if (error instanceof GroupNameTakenError)
      throw invalid([detail.invalidValue('name', 'A group with the specified name already exists.')]);
    throw error;
  });
}

const byText = (column: string) => ({ column, type: 'text', descending: false }) as const;
const listPath = {
  groups: `${base}/groups`,
  members: `${base}/members/groups`,
  owners: `${base}/members/owners`,
  invitations: `${base}/members/invitations`,
  groupInvitations: `${base}/groups/:groupId/invitations`,
};
/** Rule of the API: groups of an outside directory may be named; there are none here, so none can be found. */
const NoImsGroups = Type.Optional(
  Type.Array(Type.String(), { maxItems: 0, explain: 'This server knows no groups of an outside directory.' }),
);

const Users = Type.Array(ReferenceText('E-mail or id of a user.'), {
  maxItems: 1000,
  description: 'Users of the group.',
});
const Description = Type.Optional(DescriptionSchema);

const listGroups = itwinRoute({
  operationId: 'get-itwin-groups',
  method: 'GET',
  path: `${base}/groups`,
  tag,
  summary: 'List the groups of an iTwin',
  access: seenByMembers,
  invalid: 'Cannot get Groups.',
  query: Type.Object(pagingParameters),
  response: {
    status: 200,
    description: 'A page of groups; without paging parameters as many as a page may have.',
    schema: Type.Object({ groups: Type.Array(GroupSchema), _links: PageLinks }),
  },
  async handler(call) {
    const { access, query, rawQuery, params, links, services, invalid } = call;
    const page = await services.groups.list(
      access.itwin.id,
      pageRequest(query, [byText('name'), byText('id')], invalid, unpagedTop),
    );
    return {
      groups: await toGroups(call, page.items),
      _links: links.page(pathOf(listPath.groups, params), rawQuery, page),
    };
  },
});

const getGroup = itwinRoute({
  operationId: 'get-itwin-group',
  method: 'GET',
  path: `${base}/groups/:groupId`,
  tag,
  summary: 'Get a group',
  access: seenByMembers,
  invalid: 'Cannot get Group.',
  response: { status: 200, description: 'The group.', schema: GroupResponse },
  errors: ['GroupNotFound'],
  async handler(call) {
    const { access, params, services } = call;
    return { group: await toGroup(call, await services.groups.get(access.itwin.id, idOf(params['groupId']))) };
  },
});

const createGroup = itwinRoute({
  operationId: 'create-itwin-group',
  method: 'POST',
  path: `${base}/groups`,
  tag,
  summary: 'Create a group',
  access: managesMembers,
  invalid: 'Cannot create Group.',
  body: Type.Object({
    name: NameText('Name of the group, unique within the iTwin.'),
    description: Description,
    members: Type.Optional(Users),
    imsGroups: NoImsGroups,
  }),
  response: { status: 201, description: 'The group.', schema: GroupResponse },
  errors: ['TeamMemberNotFound'],
  async handler(call) {
    const { access, caller, body, services, invalid } = call;
    const group = { name: body.name, description: body.description ?? null, users: body.members ?? [] };
    return {
      group: await toGroup(
        call,
        await uniqueName(
          invalid,
          known('members', noSuchMember, services.groups.create(caller, access.itwin.id, group)),
        ),
      ),
    };
  },
});

const updateGroup = itwinRoute({
  operationId: 'update-itwin-group',
  method: 'PATCH',
  path: `${base}/groups/:groupId`,
  tag,
  summary: 'Change a group; `members` replaces its users',
  access: managesMembers,
  invalid: 'Cannot update Group.',
  body: Type.Object({
    name: Type.Optional(NameText('Name of the group.')),
    description: Description,
    members: Type.Optional(Users),
    imsGroups: NoImsGroups,
  }),
  response: { status: 200, description: 'The group as it is now.', schema: GroupResponse },
  errors: ['GroupNotFound', 'TeamMemberNotFound'],
  async handler(call) {
    const { access, caller, params, body, services, invalid } = call;
    const change = { name: body.name, description: body.description, users: body.members };
    return {
      group: await toGroup(
        call,
        await uniqueName(
          invalid,
          known('members', noSuchMember, services.groups.update(caller, access, idOf(params['groupId']), change)),
        ),
      ),
    };
  },
});

const deleteGroup = itwinRoute({
  operationId: 'delete-itwin-group',
  method: 'DELETE',
  path: `${base}/groups/:groupId`,
  tag,
  summary: 'Delete a group; its users lose the roles that they had through it',
  access: managesMembers,
  invalid: 'Cannot delete Group.',
  response: { status: 204, description: 'Gone.' },
  errors: ['GroupNotFound'],
  async handler({ access, caller, params, services }) {
    await services.groups.delete(caller, access.itwin.id, idOf(params['groupId']));
  },
});

const listGroupMembers = itwinRoute({
  operationId: 'get-itwin-group-members',
  method: 'GET',
  path: `${base}/members/groups`,
  tag,
  summary: 'List the groups that have roles, with these',
  access: seenByMembers,
  invalid: 'Cannot get Members.',
  query: Type.Object(pagingParameters),
  response: {
    status: 200,
    description: 'A page of members.',
    schema: Type.Object({ ...GroupMembersResponse.properties, _links: PageLinks }),
  },
  async handler({ access, query, rawQuery, params, links, services, invalid }) {
    const page = await services.groups.membersPage(
      access.itwin.id,
      pageRequest(query, [byText('name'), byText('id')], invalid),
    );
    return {
      members: page.items.map(toGroupMember),
      _links: links.page(pathOf(listPath.members, params), rawQuery, page),
    };
  },
});

const getGroupMember = itwinRoute({
  operationId: 'get-itwin-group-member',
  method: 'GET',
  path: `${base}/members/groups/:groupId`,
  tag,
  summary: 'Get the roles of a group',
  access: seenByMembers,
  invalid: 'Cannot get Member.',
  response: { status: 200, description: 'The member.', schema: Type.Object({ member: GroupMemberSchema }) },
  errors: ['TeamMemberNotFound'],
  async handler({ access, params, services }) {
    return { member: toGroupMember(await services.groups.member(access.itwin.id, idOf(params['groupId']))) };
  },
});

const addGroupMembers = itwinRoute({
  operationId: 'add-itwin-group-members',
  method: 'POST',
  path: `${base}/members/groups`,
  tag,
  summary: 'Give groups roles beside those they hold',
  access: managesMembers,
  invalid: 'Cannot add Members.',
  body: Type.Object({
    members: Type.Array(Type.Object({ groupId: Type.String({ minLength: 1, maxLength: 255 }), roleIds }), {
      minItems: 1,
      maxItems: 50,
    }),
  }),
  response: { status: 201, description: 'The members added.', schema: GroupMembersResponse },
  errors: ['GroupNotFound', 'RoleNotFound'],
  async handler({ access, caller, body, services, invalid }) {
    if (body.members.reduce((count, entry) => count + entry.roleIds.length, 0) > maxAssignments)
      throw invalid([
        detail.invalidValue(
          'members',
          `Provided 'members' value is not valid. At most ${maxAssignments} roles can be assigned in one request.`,
        ),
      ]);
    const additions = body.members.map((entry) => ({ ...entry, groupId: idOf(entry.groupId) }));
    return { members: (await services.groups.addMembers(caller, access, additions)).map(toGroupMember) };
  },
});

const updateGroupMember = itwinRoute({
  operationId: 'update-itwin-group-member',
  method: 'PATCH',
  path: `${base}/members/groups/:groupId`,
  tag,
  summary: 'Replace the roles of a group',
  access: managesMembers,
  invalid: 'Cannot update Member.',
  body: Type.Object({ roleIds }),
  response: {
    status: 200,
    description: 'The member as it is now.',
    schema: Type.Object({ member: GroupMemberSchema }),
  },
  errors: ['TeamMemberNotFound', 'RoleNotFound'],
  async handler({ access, caller, params, body, services }) {
    return {
      member: toGroupMember(
        await services.groups.setMemberRoles(caller, access, idOf(params['groupId']), body.roleIds),
      ),
    };
  },
});

const removeGroupMember = itwinRoute({
  operationId: 'remove-itwin-group-member',
  method: 'DELETE',
  path: `${base}/members/groups/:groupId`,
  tag,
  summary: 'Take all roles from a group',
  access: managesMembers,
  invalid: 'Cannot remove Member.',
  response: { status: 204, description: 'Removed.' },
  errors: ['TeamMemberNotFound'],
  async handler({ access, caller, params, services }) {
    await services.groups.removeMember(caller, access.itwin.id, idOf(params['groupId']));
  },
});

const listOwners = itwinRoute({
  operationId: 'get-itwin-owners',
  method: 'GET',
  path: `${base}/members/owners`,
  tag,
  summary: 'List the owners of an iTwin, who may do everything on it',
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
      _links: links.page(pathOf(listPath.owners, params), rawQuery, page),
    };
  },
});

const addOwner = itwinRoute({
  operationId: 'add-itwin-owner',
  method: 'POST',
  path: `${base}/members/owners`,
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
    const owner = await known('email', invalid, services.groups.addOwner(caller, access.itwin.id, body.email));
    const show = await showingUsers(call, [owner]);
    return { member: show(owner), invitation: null };
  },
});

const removeOwner = itwinRoute({
  operationId: 'remove-itwin-owner',
  method: 'DELETE',
  path: `${base}/members/owners/:ownerId`,
  tag,
  summary: 'Take ownership from a user; the last owner stays',
  access: { on: 'itwin', permission: 'administrator', from: 'path' },
  invalid: 'Cannot remove Owner.',
  response: { status: 204, description: 'Removed.' },
  errors: ['OwnerNotFound', 'LastOwner'],
  async handler({ access, caller, params, services }) {
    await services.groups.removeOwner(caller, access.itwin.id, idOf(params['ownerId']));
  },
});

const InvitationsResponse = Type.Object({ invitations: NoInvitations, _links: PageLinks });
const noPage = { items: [], next: undefined, prev: undefined };

const listInvitations = itwinRoute({
  operationId: 'get-itwin-member-invitations',
  method: 'GET',
  path: listPath.invitations,
  tag,
  summary: 'List invitations, of which there are none',
  description: 'This server sends no invitations; naming a user who is not known is refused.',
  access: seenByMembers,
  invalid: 'Cannot get Invitations.',
  query: Type.Object(pagingParameters),
  response: { status: 200, description: 'No invitations.', schema: InvitationsResponse },
  async handler({ rawQuery, params, links }) {
    return { invitations: [], _links: links.page(pathOf(listPath.invitations, params), rawQuery, noPage) };
  },
});

const getInvitation = itwinRoute({
  operationId: 'get-itwin-member-invitation',
  method: 'GET',
  path: `${listPath.invitations}/:invitationId`,
  tag,
  summary: 'Get an invitation, of which there are none',
  access: seenByMembers,
  invalid: 'Cannot get Invitation.',
  response: { status: 200, description: 'Never.', schema: Type.Object({}) },
  errors: ['InvitationNotFound'],
  handler: () => Promise.reject(new ApiError('InvitationNotFound')),
});

const deleteInvitation = itwinRoute({
  operationId: 'delete-itwin-member-invitation',
  method: 'DELETE',
  path: `${listPath.invitations}/:invitationId`,
  tag,
  summary: 'Delete an invitation, of which there are none',
  access: managesMembers,
  invalid: 'Cannot delete Invitation.',
  response: { status: 204, description: 'Never.' },
  errors: ['InvitationNotFound'],
  handler: () => Promise.reject(new ApiError('InvitationNotFound')),
});

const listGroupInvitations = itwinRoute({
  operationId: 'get-itwin-group-member-invitations',
  method: 'GET',
  path: listPath.groupInvitations,
  tag,
  summary: 'List invitations to a group, of which there are none',
  access: seenByMembers,
  invalid: 'Cannot get Invitations.',
  query: Type.Object(pagingParameters),
  response: { status: 200, description: 'No invitations.', schema: InvitationsResponse },
  errors: ['GroupNotFound'],
  async handler({ access, rawQuery, params, links, services }) {
    await services.groups.get(access.itwin.id, idOf(params['groupId']));
    return { invitations: [], _links: links.page(pathOf(listPath.groupInvitations, params), rawQuery, noPage) };
  },
});

const deleteGroupInvitation = itwinRoute({
  operationId: 'delete-itwin-group-member-invitation',
  method: 'DELETE',
  path: `${listPath.groupInvitations}/:invitationId`,
  tag,
  summary: 'Delete an invitation to a group, of which there are none',
  access: managesMembers,
  invalid: 'Cannot delete Invitation.',
  response: { status: 204, description: 'Never.' },
  errors: ['InvitationNotFound'],
  handler: () => Promise.reject(new ApiError('InvitationNotFound')),
});

export const groupAndOwnerRoutes: Route[] = [
  listGroups,
  getGroup,
  createGroup,
  updateGroup,
  deleteGroup,
  listGroupMembers,
  getGroupMember,
  addGroupMembers,
  updateGroupMember,
  removeGroupMember,
  listOwners,
  addOwner,
  removeOwner,
  listInvitations,
  getInvitation,
  deleteInvitation,
  listGroupInvitations,
  deleteGroupInvitation,
];
