import { Type } from '../jsonSchema.ts';
import { ownIModelPermissions, type IModelPermission } from '../domain.ts';
import { detail } from '../errors.ts';
import type { Grant, GrantKind } from '../imodels/imodelPermissions.ts';
import { imodelRoute, type IModelCall, type Route } from './route.ts';

const tag = 'Permissions';

const PermissionList = Type.Array(Type.String({ enum: [...ownIModelPermissions] }), { uniqueItems: true });

const getPermissions = imodelRoute({
  operationId: 'get-imodel-user-permissions',
  method: 'GET',
  path: '/imodels/:iModelId/permissions',
  tag,
  summary: "The caller's permissions on an iModel",
  description: "The iModel's own where it has some, the iTwin's otherwise.",
  access: {
    on: 'imodel',
    permission: 'imodels_webview',
    level: 'iModel',
    personal: true,
    beforeInitialized: 'Permissions are its own, or those of the iTwin.',
  },
  invalid: 'Cannot get User permissions.',
  response: {
    status: 200,
    description: 'Permissions.',
    schema: Type.Object({ permissions: Type.Array(Type.String()) }),
  },
  async handler({ access }) {
    return { permissions: ownIModelPermissions.filter((permission) => access.permissions.has(permission)) };
  },
});

/** The two kinds of iModel-level permissions differ only in the names of their properties. */
const kinds = {
  roles: { path: 'rolepermissions', list: 'rolePermissions', holder: 'roleId', label: 'Role' },
  users: { path: 'userpermissions', list: 'userPermissions', holder: 'userId', label: 'User' },
} as const;

function permissionRoutesOf(kind: GrantKind): Route[] {
  const { path, list, holder, label } = kinds[kind];
  const entries = Type.Array(
    Type.Object({ [holder]: Type.String({ minLength: 1, maxLength: 255 }), permissions: PermissionList }),
    { maxItems: 1000 },
  );
  const schema = Type.Object({ [list]: entries });
  const toWire = (grants: readonly Grant[]) => ({
    [list]: grants.map((grant) => ({ [holder]: grant.holder, permissions: grant.permissions })),
  });

  async function set(
    { access, caller, body, services, invalid }: IModelCall<unknown, unknown>,
    replace: boolean,
  ): Promise<unknown> {
    const given = (body as Record<string, Record<string, unknown>[]>)[list] ?? [];
    const grants = given.map((entry) => ({
      holder: entry[holder] as string,
      permissions: entry['permissions'] as IModelPermission[],
    }));
    const outcome = await services.iModelPermissions.set(caller, access, kind, grants, replace);
    // Rule of the API: an iModel has either role permissions or user permissions, not both.
    if (outcome === 'otherKind') throw invalid([detail.exclusiveProperties(['rolePermissions', 'userPermissions'])]);
    return toWire(outcome);
  }

  const shared = {
    path: `/imodels/:iModelId/${path}`,
    tag,
    access: { on: 'imodel', permission: 'imodels_manage', level: 'iModel' },
    invalid: `Cannot update ${label} permissions.`,
    body: schema,
    response: { status: 200, description: `${label} permissions as they are now.`, schema },
    errors: ['RoleNotFound', 'UserNotFound', 'iModelNotInitialized'],
  } as const;
  return [
    imodelRoute({
      operationId: `get-imodel-${path}`,
      method: 'GET',
      path: shared.path,
      tag,
      summary: `${label} permissions of an iModel`,
      access: {
        on: 'imodel',
        permission: 'imodels_webview',
        level: 'iModel',
        personal: true,
        beforeInitialized: 'Permissions are its own.',
      },
      invalid: `Cannot get ${label} permissions.`,
      response: { status: 200, description: `${label} permissions.`, schema },
      async handler({ access, services }) {
        return toWire(await services.iModelPermissions.list(access.imodel.id, kind));
      },
    }),
    imodelRoute({
      ...shared,
      operationId: `replace-imodel-${path}`,
      method: 'PUT',
      summary: `Replace the ${label.toLowerCase()} permissions of an iModel`,
      description:
        "They replace the iTwin's permissions for this iModel; an empty list of entries brings those back. An entry with no permissions shuts its holder out.",
      handler: (call) => set(call, true),
    }),
    imodelRoute({
      ...shared,
      operationId: `update-imodel-${path}`,
      method: 'PATCH',
      summary: `Change some ${label.toLowerCase()} permissions of an iModel`,
      description:
        'Entries that are not named stay. An entry with no permissions shuts its holder out; to remove an entry, replace the list without it.',
      handler: (call) => set(call, false),
    }),
  ];
}

/** The public reference also lists role permissions at this address. It accepts the id of any role. */
function underRole(route: Route): Route {
  return {
    ...route,
    operationId: `${route.operationId}-by-role`,
    path: '/imodels/:iModelId/roles/:roleId',
    summary: `${route.summary} (other address)`,
  };
}

const ofRoles = permissionRoutesOf('roles');
export const permissionRoutes: Route[] = [
  getPermissions,
  ...ofRoles,
  ...ofRoles.map(underRole),
  ...permissionRoutesOf('users'),
];
