import { Type, type Static } from '../jsonSchema.ts';
import { administrationPermissions, imodelPermissions, type Permission } from '../domain.ts';
import { detail } from '../errors.ts';
import type { Member, Role } from '../iTwins/members.ts';
import {
  idOf,
  managesMembers,
  managesRoles,
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
import { callerRoute, itwinRoute, type Route } from './route.ts';
import { DescriptionSchema, NameText, Nullable, PageLinks, ReferenceText } from './schemas.ts';

const tag = 'Access control';
const permissionNames = [...imodelPermissions, ...administrationPermissions];

const RoleSchema = Type.Object({
  id: Type.String(),
  displayName: Type.String(),
  description: Nullable(Type.String()),
  permissions: Type.Array(Type.String({ enum: permissionNames })),
  type: Type.Literal('Custom', { description: 'This server has no predefined roles.' }),
});
const MemberSchema = Type.Object({ ...UserSchema.properties, roles: Type.Array(RoleOfMember) });
const MembersResponse = Type.Object({ members: Type.Array(MemberSchema), _links: PageLinks });

function toRole(role: Role): Static<typeof RoleSchema> {
  return { ...role, type: 'Custom' };
}
async function toMembers(call: CallOnITwin, members: readonly Member[]): Promise<Static<typeof MemberSchema>[]> {
  const show = await showingUsers(
    call,
    members.map(({ user }) => user),
  );
  return members.map(({ user, roles }) => ({
    ...show(user),
    roles: roles.map(({ id, displayName, description }) => ({ id, displayName, description })),
  }));
}
async function toMember(call: CallOnITwin, member: Member): Promise<Static<typeof MemberSchema>> {
  const [shown] = await toMembers(call, [member]);
  return shown as Static<typeof MemberSchema>;
}

const base = '/accesscontrol/itwins/:iTwinId';
const listPath = { roles: `${base}/roles`, users: `${base}/members/users` };
const byText = (column: string) => ({ column, type: 'text', descending: false }) as const;

/** The address of a list for its links. */
export function pathOf(path: string, params: Record<string, string>): string {
  return path.replace(/:(\w+)/g, (_, name: string) => encodeURIComponent(params[name] ?? ''));
}

const PermissionList = Type.Array(Type.String({ enum: permissionNames }), { uniqueItems: true });
const RoleBody = {
  displayName: NameText('Name of the role.'),
  description: Type.Optional(DescriptionSchema),
  permissions: Type.Optional(PermissionList),
};

const listPermissions = callerRoute({
  operationId: 'get-all-permissions',
  method: 'GET',
  path: '/accesscontrol/itwins/permissions',
  tag,
  summary: 'List every permission that a role may hold',
  access: { on: 'caller' },
  invalid: 'Cannot get permissions.',
  response: {
    status: 200,
    description: 'Permissions.',
    schema: Type.Object({ permissions: Type.Array(Type.String()) }),
  },
  async handler() {
    return { permissions: permissionNames };
  },
});

/** The path of earlier versions of this server, which differs from the one the clients use. */
const listPermissionsAtOtherAddress: Route = {
  ...listPermissions,
  operationId: 'get-all-permissions-at-other-address',
  path: '/accesscontrol/permissions',
  summary: `${listPermissions.summary} (alternative path)`,
};

const getMyPermissions = itwinRoute({
  operationId: 'get-my-itwin-permissions',
  method: 'GET',
  path: `${base}/permissions`,
  tag,
  summary: "The caller's permissions on an iTwin",
  access: seenByMembers,
  invalid: 'Cannot get permissions.',
  response: {
    status: 200,
    description: 'Permissions.',
    schema: Type.Object({ permissions: Type.Array(Type.String()) }),
  },
  async handler({ access }) {
    return { permissions: permissionNames.filter((permission) => access.permissions.has(permission)) };
  },
});

const listRoles = itwinRoute({
  operationId: 'get-itwin-roles',
  method: 'GET',
  path: listPath.roles,
  tag,
  summary: 'List the roles of an iTwin',
  access: seenByMembers,
  invalid: 'Cannot get Roles.',
  query: Type.Object(pagingParameters),
  response: {
    status: 200,
    description: 'A page of roles; without paging parameters a page of the maximum size.',
    schema: Type.Object({ roles: Type.Array(RoleSchema), _links: PageLinks }),
  },
  async handler({ access, query, rawQuery, params, links, services, invalid }) {
    const page = await services.members.rolesPage(
      access.itwin.id,
      pageRequest(query, [byText('display_name'), byText('id')], invalid, unpagedTop),
    );
    return { roles: page.items.map(toRole), _links: links.page(pathOf(listPath.roles, params), rawQuery, page) };
  },
});

const getRole = itwinRoute({
  operationId: 'get-itwin-role',
  method: 'GET',
  path: `${base}/roles/:roleId`,
  tag,
  summary: 'Get a role',
  access: seenByMembers,
  invalid: 'Cannot get Role.',
  response: { status: 200, description: 'The role.', schema: Type.Object({ role: RoleSchema }) },
  errors: ['RoleNotFound'],
  async handler({ access, params, services }) {
    return { role: toRole(await services.members.role(access.itwin.id, idOf(params['roleId']))) };
  },
});

const createRole = itwinRoute({
  operationId: 'create-itwin-role',
  method: 'POST',
  path: `${base}/roles`,
  tag,
  summary: 'Create a role',
  access: managesRoles,
  invalid: 'Cannot create Role.',
  body: Type.Object(RoleBody),
  response: { status: 201, description: 'The role.', schema: Type.Object({ role: RoleSchema }) },
  async handler({ access, caller, body, services }) {
    const role = {
      displayName: body.displayName,
      description: body.description ?? null,
      permissions: (body.permissions ?? []) as Permission[],
    };
    return { role: toRole(await services.members.createRole(caller, access, role)) };
  },
});

const updateRole = itwinRoute({
  operationId: 'update-itwin-role',
  method: 'PATCH',
  path: `${base}/roles/:roleId`,
  tag,
  summary: 'Update a role',
  access: managesRoles,
  invalid: 'Cannot update Role.',
  body: Type.Object({ ...RoleBody, displayName: Type.Optional(RoleBody.displayName) }),
  response: { status: 200, description: 'The updated role.', schema: Type.Object({ role: RoleSchema }) },
  errors: ['RoleNotFound'],
  async handler({ access, caller, params, body, services }) {
    const change = {
      ...(body.displayName !== undefined && { displayName: body.displayName }),
      ...(body.description !== undefined && { description: body.description }),
      ...(body.permissions !== undefined && { permissions: body.permissions as Permission[] }),
    };
    return { role: toRole(await services.members.updateRole(caller, access, idOf(params['roleId']), change)) };
  },
});

const deleteRole = itwinRoute({
  operationId: 'delete-itwin-role',
  method: 'DELETE',
  path: `${base}/roles/:roleId`,
  tag,
  summary: 'Delete a role',
  description: 'Members lose the role; iModels whose permissions name it remain inaccessible to them.',
  access: managesRoles,
  invalid: 'Cannot delete Role.',
  response: { status: 204, description: 'Deleted.' },
  errors: ['RoleNotFound'],
  async handler({ access, caller, params, services }) {
    await services.members.deleteRole(caller, access.itwin.id, idOf(params['roleId']));
  },
});

const listMembers = itwinRoute({
  operationId: 'get-itwin-members',
  method: 'GET',
  path: `${base}/members/users`,
  tag,
  summary: 'List members and their roles',
  access: seenByMembers,
  invalid: 'Cannot get Members.',
  query: Type.Object(pagingParameters),
  response: { status: 200, description: 'A page of members.', schema: MembersResponse },
  async handler(call) {
    const { access, query, rawQuery, params, links, services, invalid } = call;
    const page = await services.members.list(
      access.itwin.id,
      pageRequest(query, [byText('email'), byText('id')], invalid),
    );
    return {
      members: await toMembers(call, page.items),
      _links: links.page(pathOf(listPath.users, params), rawQuery, page),
    };
  },
});

const getMember = itwinRoute({
  operationId: 'get-itwin-member',
  method: 'GET',
  path: `${base}/members/users/:userId`,
  tag,
  summary: 'Get a member and the roles assigned to it directly',
  access: seenByMembers,
  invalid: 'Cannot get Member.',
  response: { status: 200, description: 'The member.', schema: Type.Object({ member: MemberSchema }) },
  errors: ['TeamMemberNotFound'],
  async handler(call) {
    const { access, params, services } = call;
    return { member: await toMember(call, await services.members.get(access.itwin.id, idOf(params['userId']))) };
  },
});

const addMembers = itwinRoute({
  operationId: 'add-itwin-members',
  method: 'POST',
  path: `${base}/members/users`,
  tag,
  summary: 'Add members, or roles to members',
  description:
    'Users are identified by e-mail or id, and must be in the users file or have connected to this server before.',
  access: managesMembers,
  invalid: 'Cannot add Members.',
  body: Type.Object({
    members: Type.Array(
      Type.Object({
        email: Type.Optional(ReferenceText('E-mail of the user.')),
        userId: Type.Optional(ReferenceText('Id of the user, instead.')),
        roleIds,
      }),
      { minItems: 1, maxItems: 50, description: 'At most 50 a call, with at most 50 roles together.' },
    ),
    customMessage: Type.Optional(
      Nullable(
        Type.String({ maxLength: 2000, description: 'Text for invitations; ignored, because this server sends none.' }),
      ),
    ),
  }),
  response: {
    status: 201,
    description: 'The members added.',
    schema: Type.Object({ members: Type.Array(MemberSchema), invitations: NoInvitations }),
  },
  errors: ['RoleNotFound'],
  async handler(call) {
    const { access, caller, body, services, invalid } = call;
    if (body.members.some(({ email, userId }) => (email === undefined) === (userId === undefined)))
      throw invalid([
        detail.invalidValue(
          'members',
          "Provided 'members' value is not valid. Each entry names either 'email' or 'userId'.",
        ),
      ]);
    if (body.members.reduce((count, entry) => count + entry.roleIds.length, 0) > maxAssignments)
      throw invalid([
        detail.invalidValue(
          'members',
          `Provided 'members' value is not valid. At most ${maxAssignments} roles can be assigned in one request.`,
        ),
      ]);
    const additions = body.members.map((entry) => ({
      user: entry.userId ?? entry.email ?? '',
      roleIds: entry.roleIds,
    }));
    const { members, unknown } = await services.members.add(caller, access, additions);
    if (unknown.length > 0) throw invalid(unknown.map((user) => detail.invalidValue('members', unknownUser(user))));
    return { members: await toMembers(call, members), invitations: [] };
  },
});

const updateMember = itwinRoute({
  operationId: 'update-itwin-member',
  method: 'PATCH',
  path: `${base}/members/users/:userId`,
  tag,
  summary: 'Replace the roles of a member',
  access: managesMembers,
  invalid: 'Cannot update Member.',
  body: Type.Object({ roleIds }),
  response: { status: 200, description: 'The updated member.', schema: Type.Object({ member: MemberSchema }) },
  errors: ['TeamMemberNotFound', 'RoleNotFound'],
  async handler(call) {
    const { access, caller, params, body, services } = call;
    return {
      member: await toMember(
        call,
        await services.members.setRoles(caller, access, idOf(params['userId']), body.roleIds),
      ),
    };
  },
});

const removeMember = itwinRoute({
  operationId: 'remove-itwin-member',
  method: 'DELETE',
  path: `${base}/members/users/:userId`,
  tag,
  summary: 'Remove a member',
  access: managesMembers,
  invalid: 'Cannot remove Member.',
  response: { status: 204, description: 'Removed.' },
  errors: ['TeamMemberNotFound'],
  async handler({ access, caller, params, services }) {
    await services.members.remove(caller, access.itwin.id, idOf(params['userId']));
  },
});

export const accessControlRoutes: Route[] = [
  listPermissions,
  listPermissionsAtOtherAddress,
  getMyPermissions,
  listRoles,
  getRole,
  createRole,
  updateRole,
  deleteRole,
  listMembers,
  getMember,
  addMembers,
  updateMember,
  removeMember,
];
