import { Type, type Static } from 'typebox';
import type { UserAccountTable, UserGroupTable } from '../db/schema.ts';
import { detail, type ApiError, type ErrorDetail } from '../errors.ts';
import { UnknownUsersError, type Group, type GroupMember } from '../itwins/groups.ts';
import { idOf, managesMembers, roleIds, RoleOfMember, seenByMembers } from './accessControlParts.ts';
import { itwinRoute, type Route } from './route.ts';
import { DescriptionSchema, NameText, Nullable, ReferenceText } from './schemas.ts';

const tag = 'Access control';
const base = '/accesscontrol/itwins/:iTwinId';

const UserSchema = Type.Object({ userId: Type.String(), email: Type.String(), givenName: Type.String(), surname: Type.String() });
const GroupSchema = Type.Object({ id: Type.String(), name: Type.String(), description: Nullable(Type.String()), members: Type.Array(UserSchema) });
const GroupResponse = Type.Object({ group: GroupSchema });
const GroupMemberSchema = Type.Object({ id: Type.String(), groupName: Type.String(), groupDescription: Nullable(Type.String()), roles: Type.Array(RoleOfMember) });
const GroupMembersResponse = Type.Object({ members: Type.Array(GroupMemberSchema) });
const OwnerSchema = Type.Object({ id: Type.String(), email: Type.String(), givenName: Type.String(), surname: Type.String(), organization: Nullable(Type.String()) });

function toUser(row: UserAccountTable): Static<typeof UserSchema> {
  return { userId: row.id, email: row.email, givenName: row.given_name, surname: row.surname };
}
function toGroup({ id, name, description, users }: Group): Static<typeof GroupSchema> {
  return { id, name, description, members: users.map(toUser) };
}
function toGroupMember({ group, roles }: { group: UserGroupTable; roles: GroupMember['roles'] }): Static<typeof GroupMemberSchema> {
  return { id: group.id, groupName: group.name, groupDescription: group.description, roles: roles.map(({ id, displayName, description }) => ({ id, displayName, description })) };
}
function toOwner(row: UserAccountTable): Static<typeof OwnerSchema> {
  return { id: row.id, email: row.email, givenName: row.given_name, surname: row.surname, organization: row.organization_id };
}

/** Tells of users that nobody knows, under the property that named them. */
async function known<T>(target: string, invalid: (details: ErrorDetail[]) => ApiError, work: Promise<T>): Promise<T> {
  return work.catch((error: unknown) => {
    if (error instanceof UnknownUsersError) throw invalid(error.users.map((user) => detail.invalidValue(target, `'${user}' is not a known user.`)));
    throw error;
  });
}

const Users = Type.Array(ReferenceText('E-mail or id of a user.'), { maxItems: 1000, description: 'Users of the group.' });
const Description = Type.Optional(DescriptionSchema);

const listGroups = itwinRoute({
  operationId: 'get-itwin-groups',
  method: 'GET',
  path: `${base}/groups`,
  tag,
  summary: 'List the groups of an iTwin',
  access: seenByMembers,
  invalid: 'Cannot get Groups.',
  response: { status: 200, description: 'Groups.', schema: Type.Object({ groups: Type.Array(GroupSchema) }) },
  async handler({ access, services }) {
    return { groups: (await services.groups.list(access.itwin.id)).map(toGroup) };
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
  async handler({ access, params, services }) {
    return { group: toGroup(await services.groups.get(access.itwin.id, idOf(params.groupId))) };
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
  body: Type.Object({ name: NameText('Name of the group.'), description: Description, members: Type.Optional(Users) }),
  response: { status: 201, description: 'The group.', schema: GroupResponse },
  async handler({ access, caller, body, services, invalid }) {
    const group = { name: body.name, description: body.description ?? null, users: body.members ?? [] };
    return { group: toGroup(await known('members', invalid, services.groups.create(caller, access.itwin.id, group))) };
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
  body: Type.Object({ name: Type.Optional(NameText('Name of the group.')), description: Description, members: Type.Optional(Users) }),
  response: { status: 200, description: 'The group as it is now.', schema: GroupResponse },
  errors: ['GroupNotFound'],
  async handler({ access, caller, params, body, services, invalid }) {
    const change = { name: body.name, description: body.description, users: body.members };
    return { group: toGroup(await known('members', invalid, services.groups.update(caller, access.itwin.id, idOf(params.groupId), change))) };
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
    await services.groups.delete(caller, access.itwin.id, idOf(params.groupId));
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
  response: { status: 200, description: 'Members.', schema: GroupMembersResponse },
  async handler({ access, services }) {
    return { members: (await services.groups.members(access.itwin.id)).map(toGroupMember) };
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
  errors: ['MemberNotFound'],
  async handler({ access, params, services }) {
    return { member: toGroupMember(await services.groups.member(access.itwin.id, idOf(params.groupId))) };
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
  body: Type.Object({ members: Type.Array(Type.Object({ groupId: Type.String({ minLength: 1, maxLength: 255 }), roleIds }), { minItems: 1, maxItems: 50 }) }),
  response: { status: 201, description: 'The members added.', schema: GroupMembersResponse },
  errors: ['GroupNotFound', 'RoleNotFound'],
  async handler({ access, caller, body, services }) {
    const additions = body.members.map((entry) => ({ ...entry, groupId: idOf(entry.groupId) }));
    return { members: (await services.groups.addMembers(caller, access.itwin.id, additions)).map(toGroupMember) };
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
  response: { status: 200, description: 'The member as it is now.', schema: Type.Object({ member: GroupMemberSchema }) },
  errors: ['MemberNotFound', 'RoleNotFound'],
  async handler({ access, caller, params, body, services }) {
    return { member: toGroupMember(await services.groups.setMemberRoles(caller, access.itwin.id, idOf(params.groupId), body.roleIds)) };
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
  errors: ['MemberNotFound'],
  async handler({ access, caller, params, services }) {
    await services.groups.removeMember(caller, access.itwin.id, idOf(params.groupId));
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
  response: { status: 200, description: 'Owners.', schema: Type.Object({ members: Type.Array(OwnerSchema) }) },
  async handler({ access, services }) {
    return { members: (await services.groups.owners(access.itwin.id)).map(toOwner) };
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
  response: { status: 201, description: 'The owner.', schema: Type.Object({ member: OwnerSchema }) },
  async handler({ access, caller, body, services, invalid }) {
    return { member: toOwner(await known('email', invalid, services.groups.addOwner(caller, access.itwin.id, body.email))) };
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
    await services.groups.removeOwner(caller, access.itwin.id, idOf(params.ownerId));
  },
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
];
