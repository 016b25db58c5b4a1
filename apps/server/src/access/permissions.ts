import { sql } from 'kysely';
import type { Db } from '../db/database.ts';
import type { IModelTable, ITwinTable } from '../db/schema.ts';
import {
  administrationPermissions,
  imodelPermissions,
  parseGuid,
  type Caller,
  type HeldShare,
  type IModelPermission,
  type Permission,
  type Principal,
} from '../domain.ts';
import { ApiError, type ErrorCode } from '../errors.ts';

/** What a caller may do on an iTwin. */
export interface ITwinAccess {
  itwin: ITwinTable;
  /** Member, owner or administrator: the iTwin exists for this caller. */
  visible: boolean;
  /** Owner of the iTwin or Organization Administrator of the organization that it belongs to. */
  administrator: boolean;
  permissions: ReadonlySet<Permission>;
}

/** What a caller may do on an iModel. */
export interface IModelAccess {
  imodel: IModelTable;
  onITwin: ITwinAccess;
  visible: boolean;
  /** iModel-level permissions where the iModel has some, the iTwin's otherwise. */
  permissions: ReadonlySet<Permission>;
}

/** Each of these includes the ones before it: "at least webview" is the API's own way to speak of them. */
const ladder: readonly IModelPermission[] = ['imodels_webview', 'imodels_read', 'imodels_write', 'imodels_manage'];

/** A set of permissions with everything that they include. */
export function withIncluded(permissions: Iterable<Permission>): Set<Permission> {
  const all = new Set(permissions);
  const highest = ladder.findLastIndex((permission) => all.has(permission));
  for (const permission of ladder.slice(0, highest + 1)) all.add(permission);
  return all;
}

/** What a caller must hold, in a form that can be judged again later. */
export interface ITwinRequirement {
  on: 'itwin';
  id: string;
  permission: Permission | 'member';
  notFound?: ErrorCode;
}
/** The same for an iModel; with `level: 'iTwin'` the permission must be held on its iTwin, whatever the iModel's own say. */
export interface IModelRequirement {
  on: 'imodel';
  id: string;
  permission: Permission;
  level: 'iModel' | 'iTwin';
}
export type Requirement = ITwinRequirement | IModelRequirement;

/** A requirement that was met, and by what. */
export interface MetRequirement {
  requirement: Requirement;
  access: ITwinAccess | IModelAccess;
}

/** Reads permissions from the database. Absent and invisible things are told apart by the caller of these, never here. */
export class Permissions {
  readonly #db: Db;

  constructor(db: Db) {
    this.#db = db;
  }

  /** What a requirement is about, for the caller; undefined when there is no such thing (any more). */
  async find(caller: Caller, { on, id: text }: Requirement): Promise<ITwinAccess | IModelAccess | undefined> {
    const id = parseGuid(text);
    if (id === undefined) return undefined;
    return on === 'imodel' ? this.onIModel(caller, id) : this.onITwin(caller, id);
  }

  /** Finds and judges it (`requireMet`). @throws ApiError */
  async require(caller: Caller, requirement: Requirement): Promise<ITwinAccess | IModelAccess> {
    return requireMet(await this.find(caller, requirement), requirement);
  }

  /**
   * Judges requirements again that were met before. Whoever has lost any permission since is refused, also one that the
   * requirements do not name: the request may have been judged by it.
   * @throws ApiError
   */
  async requireStill(caller: Caller, met: readonly MetRequirement[]): Promise<void> {
    for (const { requirement, access: before } of met) {
      const now = levelsOf(await this.require(caller, requirement));
      const lost = levelsOf(before).some((permissions, level) =>
        [...permissions].some((permission) => now[level]?.has(permission) !== true),
      );
      if (lost) throw new ApiError('InsufficientPermissions');
    }
  }

  /** Undefined when there is no such iTwin. */
  async onITwin(caller: Caller, itwinId: string): Promise<ITwinAccess | undefined> {
    if (caller.share !== undefined) return undefined;
    const principal = principalOf(caller);
    const row = await this.#db
      .selectFrom('itwin')
      .selectAll()
      .select(ownedBy(principal, 'itwin'))
      .where('id', '=', itwinId)
      .where('deleted_at', 'is', null)
      .executeTakeFirst();
    if (row === undefined) return undefined;
    const { owned, ...itwin } = row;
    return (await this.#accessTo(itwin, principal, Boolean(owned))).access;
  }

  /** Undefined when there is no such iModel (any more). */
  async onIModel(caller: Caller, imodelId: string): Promise<IModelAccess | undefined> {
    return caller.share === undefined
      ? this.#ofPrincipal(principalOf(caller), imodelId)
      : this.byShare(caller.share, imodelId);
  }

  /**
   * What the holder of a share may do. Rule of shares: the one iModel, nothing of its iTwin, and nothing that the creator of
   * the share may not do now. Undefined when that is nothing.
   */
  async byShare({ iModelId, permission, creator }: HeldShare, imodelId: string): Promise<IModelAccess | undefined> {
    const ofCreator = iModelId === imodelId ? await this.#ofPrincipal(creator, imodelId) : undefined;
    const permissions = new Set([...withIncluded([permission])].filter((each) => ofCreator?.permissions.has(each)));
    if (ofCreator === undefined || permissions.size === 0) return undefined;
    const onITwin: ITwinAccess = {
      itwin: ofCreator.onITwin.itwin,
      visible: false,
      administrator: false,
      permissions: new Set(),
    };
    return { imodel: ofCreator.imodel, onITwin, visible: true, permissions };
  }

  async #ofPrincipal(principal: Principal, imodelId: string): Promise<IModelAccess | undefined> {
    // In one go: on PostgreSQL each statement is a way there and back, and every request begins with this.
    const found = await this.#db
      .selectFrom('imodel as m')
      .innerJoin('itwin as i', 'i.id', 'm.itwin_id')
      .selectAll('m')
      .select(itwinColumns.map((column) => `i.${column} as itwin: ${column}` as const))
      .select(ownedBy(principal, 'i'))
      .where('m.id', '=', imodelId)
      .where('m.deleted_at', 'is', null)
      .where('i.deleted_at', 'is', null)
      .executeTakeFirst();
    if (found === undefined) return undefined;
    const { itwin, owned, row } = splitGrants(found);
    // One in the making holds on to what it is made from; it shows nothing of that.
    const imodel =
      row.state === 'initialized' ? row : { ...row, history_id: null, head_index: 0, head_changeset_id: '' };
    const { access: onITwin, roles } = await this.#accessTo(itwin, principal, owned);
    const permissions = await this.#effective(principal, imodel, onITwin, roles);
    return {
      imodel,
      onITwin,
      permissions,
      visible: permissions.has('imodels_webview') || onITwin.permissions.has('imodels_manage'),
    };
  }

  /** iModel ids of an iTwin whose own permissions shut this caller out; empty for those who may list them all. */
  async hiddenIModels(caller: Caller, access: ITwinAccess): Promise<string[]> {
    // Rule of the API: iTwin-level manage and Organization Administrators list all iModels.
    if (access.permissions.has('imodels_manage')) return [];
    const secured = await this.#db
      .selectFrom('imodel')
      .selectAll()
      .where('itwin_id', '=', access.itwin.id)
      .where('deleted_at', 'is', null)
      .where('secured_by', 'is not', null)
      .execute();
    if (secured.length === 0) return [];
    const principal = principalOf(caller);
    const roles = await this.#rolesOf(principal, access.itwin.id);
    const hidden: string[] = [];
    for (const imodel of secured) {
      if (!(await this.#effective(principal, imodel, access, roles)).has('imodels_webview')) hidden.push(imodel.id);
    }
    return hidden;
  }

  /** Rule of the API: permissions set on an iModel replace the iTwin's for it; deleting stays with the iTwin. */
  async #effective(
    principal: Principal,
    imodel: IModelTable,
    onITwin: ITwinAccess,
    roles: readonly HeldRole[],
  ): Promise<ReadonlySet<Permission>> {
    if (onITwin.administrator || imodel.secured_by === null) return onITwin.permissions;
    const permissions = withIncluded(await this.#grantedOn(imodel, principal, onITwin, roles));
    if (onITwin.permissions.has('imodels_delete')) permissions.add('imodels_delete');
    return permissions;
  }

  /** Rule of the API: with role permissions on the iModel, webview on the iTwin is needed besides. */
  async #grantedOn(
    imodel: IModelTable,
    principal: Principal,
    onITwin: ITwinAccess,
    roles: readonly HeldRole[],
  ): Promise<Permission[]> {
    const holders =
      imodel.secured_by === 'users'
        ? [principal.id]
        : onITwin.permissions.has('imodels_webview')
          ? roles.map((role) => role.id)
          : [];
    if (holders.length === 0) return [];
    const rows = await this.#db
      .selectFrom('imodel_grant')
      .select('permissions')
      .where('imodel_id', '=', imodel.id)
      .where('holder_id', 'in', holders)
      .execute();
    return rows.flatMap((row) => JSON.parse(row.permissions) as Permission[]);
  }

  /** Owners and administrators may do everything; roles are read for the others only. */
  async #accessTo(
    itwin: ITwinTable,
    principal: Principal,
    owner: boolean,
  ): Promise<{ access: ITwinAccess; roles: readonly HeldRole[] }> {
    const withoutRoles = accessTo(itwin, principal, [], owner);
    if (withoutRoles.administrator) return { access: withoutRoles, roles: [] };
    const roles = await this.#rolesOf(principal, itwin.id);
    return { access: accessTo(itwin, principal, roles, owner), roles };
  }

  /** Roles that the caller has on an iTwin, of the own or of a group. */
  async #rolesOf(principal: Principal, itwinId: string): Promise<HeldRole[]> {
    const own = this.#db
      .selectFrom('member')
      .select('role_id')
      .where('itwin_id', '=', itwinId)
      .where('user_id', '=', principal.id);
    const ofGroups = this.#db
      .selectFrom('group_user as u')
      .innerJoin('group_member as g', 'g.group_id', 'u.group_id')
      .select('g.role_id')
      .where('g.itwin_id', '=', itwinId)
      .where('u.user_id', '=', principal.id);
    const rows = await this.#db
      .selectFrom('role')
      .select(['id', 'permissions'])
      .where('id', 'in', own.union(ofGroups))
      .execute();
    return rows.map((row) => ({ id: row.id, permissions: JSON.parse(row.permissions) as Permission[] }));
  }
}

const itwinColumns = [
  'id',
  'organization_id',
  'owner_id',
  'class',
  'sub_class',
  'type',
  'number',
  'display_name',
  'search_text',
  'geographic_location',
  'data_center',
  'status',
  'parent_id',
  'created_at',
  'deleted_at',
] as const satisfies readonly (keyof ITwinTable)[];

/** Whether somebody owns the iTwin of a row. */
function ownedBy(principal: Principal, itwin: 'i' | 'itwin') {
  return sql<
    boolean | number
  >`exists (select 1 from owner where owner.itwin_id = ${sql.ref(`${itwin}.id`)} and owner.user_id = ${principal.id})`.as(
    'owned',
  );
}

/** Takes a row of an iModel and its iTwin apart. */
function splitGrants({ owned, ...rest }: Record<string, unknown>): {
  row: IModelTable;
  itwin: ITwinTable;
  owned: boolean;
} {
  const itwin: Record<string, unknown> = {};
  for (const column of itwinColumns) {
    itwin[column] = rest[`itwin: ${column}`];
    Reflect.deleteProperty(rest, `itwin: ${column}`);
  }
  return { row: rest as unknown as IModelTable, itwin: itwin as unknown as ITwinTable, owned: Boolean(owned) };
}

function principalOf({ user, administeredOrganizationIds }: Caller): Principal {
  return { id: user.id, administeredOrganizationIds };
}

function accessTo(itwin: ITwinTable, principal: Principal, roles: readonly HeldRole[], owner: boolean): ITwinAccess {
  const organization =
    itwin.organization_id !== null && principal.administeredOrganizationIds.includes(itwin.organization_id);
  // Clone rule: an Organization Administrator of both organizations may clone between their iTwins.
  // An iTwin of no organization has no administrator but its owners.
  if (organization || (owner && itwin.organization_id === null))
    return { itwin, visible: true, administrator: true, permissions: everything };
  if (owner) return { itwin, visible: true, administrator: true, permissions: everythingOfOwners };
  return {
    itwin,
    visible: roles.length > 0,
    administrator: false,
    permissions: withIncluded(roles.flatMap((role) => role.permissions)),
  };
}

/** What is held on an iTwin; of an iModel, on the iModel and on its iTwin. */
function levelsOf(access: ITwinAccess | IModelAccess): ReadonlySet<Permission>[] {
  return 'onITwin' in access ? [access.permissions, access.onITwin.permissions] : [access.permissions];
}

interface HeldRole {
  id: string;
  permissions: Permission[];
}

const everythingOfOwners: ReadonlySet<Permission> = new Set<Permission>([
  ...imodelPermissions,
  ...administrationPermissions,
  'administrator',
]);
const everything: ReadonlySet<Permission> = new Set<Permission>([...everythingOfOwners, 'organization_administrator']);

/** Which of the iTwins that a caller may see: those of which it is an owner or member, those that it administers, or all. */
export type QueryScope = 'member' | 'administrator' | 'all';

/** Condition on an iTwin row that holds when the caller may see it: its owner, a member, or its administrator. */
export function seenBy(caller: Caller, scope: QueryScope = 'all') {
  const { id } = caller.user;
  const administered = caller.administeredOrganizationIds;
  const ofAdministered =
    administered.length === 0 ? sql`false` : sql`itwin.organization_id in (${sql.join(administered)})`;
  const ofMember = sql`exists (select 1 from owner where owner.itwin_id = itwin.id and owner.user_id = ${id})
    or exists (select 1 from member where member.itwin_id = itwin.id and member.user_id = ${id})
    or exists (select 1 from group_user u join group_member g on g.group_id = u.group_id where g.itwin_id = itwin.id and u.user_id = ${id})`;
  const seen =
    scope === 'member' ? ofMember : scope === 'administrator' ? ofAdministered : sql`${ofMember} or ${ofAdministered}`;
  return sql<boolean>`itwin.deleted_at is null and (${seen})`;
}

/**
 * Judges what was found for a requirement. Rule of this server: what a caller may not see answers 404, what it may see but not do
 * answers 403. Holding the permission itself is enough, also for a caller who sees nothing else.
 * @throws ApiError
 */
export function requireMet(
  found: ITwinAccess | IModelAccess | undefined,
  requirement: Requirement,
): ITwinAccess | IModelAccess {
  const { on, permission } = requirement;
  const held =
    found !== undefined && on === 'imodel' && requirement.level === 'iTwin' && 'onITwin' in found
      ? found.onITwin.permissions
      : found?.permissions;
  if (found !== undefined && (permission === 'member' ? found.visible : held?.has(permission) === true)) return found;
  throw new ApiError(
    found?.visible === true
      ? 'InsufficientPermissions'
      : on === 'imodel'
        ? 'iModelNotFound'
        : (requirement.notFound ?? 'iTwinNotFound'),
  );
}

/** Rule of this server: nobody grants more than they hold, by whichever way. @throws ApiError InsufficientPermissions */
export function requireHeld({ permissions }: Pick<ITwinAccess, 'permissions'>, granted: Iterable<Permission>): void {
  for (const permission of withIncluded(granted))
    if (!permissions.has(permission)) throw new ApiError('InsufficientPermissions');
}
