import { Type, type Static } from '../jsonSchema.ts';
import type { UserGroupTable } from '../db/schemaOfITwins.ts';
import { ApiError, detail, type ErrorDetail } from '../errors.ts';
import { GroupNameTakenError, type Group, type GroupMember } from '../iTwins/groups.ts';
import { pathOf } from './accessControl.ts';
import {
  byText,
  idOf,
  managesMembers,
  maxAssignments,
  refusingUnknownUsers,
  roleIds,
  RoleOfMember,
  seenByMembers,
  showingUsers,
  UserSchema,
  type CallOnITwin,
} from './accessControlParts.ts';
import { pageRequest, pagingParameters, unpagedTop } from './paging.ts';
import { itwinRoute, type Route } from './route.ts';
import { DescriptionSchema, NameText, Nullable, PageLinks, ReferenceText } from './schemas.ts';

const tag = 'Access control';
const groupsPath = '/accesscontrol/itwins/:iTwinId/groups';
const membersPath = '/accesscontrol/itwins/:iTwinId/members/groups';

/** Older versions of the client read `userId`, newer ones `id`. */
const GroupUserSchema = Type.Object({ ...UserSchema.properties, userId: Type.String() });
const ImsGroups = Type.Array(Type.String(), {
  maxItems: 0,
  description: 'Always empty: this server is not connected to an external directory.',
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

const noSuchMember = (details: ErrorDetail[]): ApiError => new ApiError('TeamMemberNotFound', { details });

/** Refuses a group name that is already taken. */
async function refusingTakenNames<T>(invalid: (details: ErrorDetail[]) => ApiError, work: Promise<T>): Promise<T> {
  return work.catch((error: unknown) => {
    if (error instanceof GroupNameTakenError)
      throw invalid([detail.invalidValue('name', 'A group with the specified name already exists.')]);
    throw error;
  });
}

/** Rule of the API: a body may name groups of an external directory; this server has no directory, so none is found. */
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
  path: groupsPath,
  tag,
  summary: 'List the groups of an iTwin',
  access: seenByMembers,
  invalid: 'Cannot get Groups.',
  query: Type.Object(pagingParameters),
  response: {
    status: 200,
    description: 'A page of groups; without paging parameters a page of the maximum size.',
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
      _links: links.page(pathOf(groupsPath, params), rawQuery, page),
    };
  },
});

const getGroup = itwinRoute({
  operationId: 'get-itwin-group',
  method: 'GET',
  path: `${groupsPath}/:groupId`,
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
  path: groupsPath,
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
        await refusingTakenNames(
          invalid,
          refusingUnknownUsers('members', noSuchMember, services.groups.create(caller, access.itwin.id, group)),
        ),
      ),
    };
  },
});

const updateGroup = itwinRoute({
  operationId: 'update-itwin-group',
  method: 'PATCH',
  path: `${groupsPath}/:groupId`,
  tag,
  summary: 'Update a group; `members` replaces its users',
  access: managesMembers,
  invalid: 'Cannot update Group.',
  body: Type.Object({
    name: Type.Optional(NameText('Name of the group.')),
    description: Description,
    members: Type.Optional(Users),
    imsGroups: NoImsGroups,
  }),
  response: { status: 200, description: 'The updated group.', schema: GroupResponse },
  errors: ['GroupNotFound', 'TeamMemberNotFound'],
  async handler(call) {
    const { access, caller, params, body, services, invalid } = call;
    const change = { name: body.name, description: body.description, users: body.members };
    return {
      group: await toGroup(
        call,
        await refusingTakenNames(
          invalid,
          refusingUnknownUsers(
            'members',
            noSuchMember,
            services.groups.update(caller, access, idOf(params['groupId']), change),
          ),
        ),
      ),
    };
  },
});

const deleteGroup = itwinRoute({
  operationId: 'delete-itwin-group',
  method: 'DELETE',
  path: `${groupsPath}/:groupId`,
  tag,
  summary: 'Delete a group; its users lose the roles they had through the group',
  access: managesMembers,
  invalid: 'Cannot delete Group.',
  response: { status: 204, description: 'Deleted.' },
  errors: ['GroupNotFound'],
  async handler({ access, caller, params, services }) {
    await services.groups.delete(caller, access.itwin.id, idOf(params['groupId']));
  },
});

const listGroupMembers = itwinRoute({
  operationId: 'get-itwin-group-members',
  method: 'GET',
  path: membersPath,
  tag,
  summary: 'List the groups that are members of an iTwin, with their roles',
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
      _links: links.page(pathOf(membersPath, params), rawQuery, page),
    };
  },
});

const getGroupMember = itwinRoute({
  operationId: 'get-itwin-group-member',
  method: 'GET',
  path: `${membersPath}/:groupId`,
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
  path: membersPath,
  tag,
  summary: 'Add roles to groups',
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
  path: `${membersPath}/:groupId`,
  tag,
  summary: 'Replace the roles of a group',
  access: managesMembers,
  invalid: 'Cannot update Member.',
  body: Type.Object({ roleIds }),
  response: {
    status: 200,
    description: 'The updated member.',
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
  path: `${membersPath}/:groupId`,
  tag,
  summary: 'Remove all roles from a group',
  access: managesMembers,
  invalid: 'Cannot remove Member.',
  response: { status: 204, description: 'Removed.' },
  errors: ['TeamMemberNotFound'],
  async handler({ access, caller, params, services }) {
    await services.groups.removeMember(caller, access.itwin.id, idOf(params['groupId']));
  },
});

export const groupRoutes: Route[] = [
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
];
