import { sql, type RawBuilder } from 'kysely';
import { compiledQuery } from '../db/compiledQuery.ts';
import type { Db } from '../db/database.ts';
import type { IModelTable } from '../db/schema.ts';
import type { ITwinTable } from '../db/schemaOfITwins.ts';
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

/** The columns of the iTwin of an iModel that requests for the iModel need. */
export type ITwinOfIModel = Pick<ITwinTable, 'id' | 'organization_id' | 'owner_id' | 'data_center'>;

/** What a caller may do on an iTwin. */
export interface ITwinAccess<Row extends ITwinOfIModel = ITwinTable> {
  itwin: Row;
  /** Member, owner or administrator: the iTwin exists for this caller. */
  visible: boolean;
  /** Owner of the iTwin or Organization Administrator of the organization that it belongs to. */
  administrator: boolean;
  permissions: ReadonlySet<Permission>;
  /** What the permissions follow from; undefined for the holder of a share, who has none. */
  grounds: Grounds | undefined;
}

/** The rows from which the permissions on an iTwin follow, with its organization. */
interface Grounds {
  owner: boolean;
  /** Not read, and empty, for owners and administrators. */
  roles: readonly HeldRole[];
}

/** What a caller may do on an iModel. */
export interface IModelAccess {
  imodel: IModelTable;
  onITwin: ITwinAccess<ITwinOfIModel>;
  visible: boolean;
  /** The permissions set on the iModel if it has its own, those of its iTwin otherwise. */
  permissions: ReadonlySet<Permission>;
}

/** Rule of the API: each permission includes the ones before it ("at least webview"). */
const hierarchy: readonly IModelPermission[] = ['imodels_webview', 'imodels_read', 'imodels_write', 'imodels_manage'];

/** The permissions and all permissions that they include. */
export function withIncluded(permissions: Iterable<Permission>): Set<Permission> {
  const all = new Set(permissions);
  const highest = hierarchy.findLastIndex((permission) => all.has(permission));
  for (const permission of hierarchy.slice(0, highest + 1)) all.add(permission);
  return all;
}

/** Which iModels of one iTwin a caller may list, said in two ways. */
export interface ListedIModels {
  /** Condition on rows of `imodel`, for a statement that finds its iModels by something else. */
  condition: RawBuilder<boolean>;
  /**
   * Condition on rows of `imodel`, which an index holds: the iModels without permissions of their own. The others that the caller may
   * list are those of `granted`, which start from the caller, so that nothing that is hidden is looked at.
   */
  open: RawBuilder<boolean>;
  /** Statements for rows of `imodel`, of any iTwin, deleted ones included. */
  granted: readonly RawBuilder<unknown>[];
}

/** Permissions of one kind on iModels, and a list of the ids of their holders. */
interface Granted {
  securedBy: NonNullable<IModelTable['secured_by']>;
  holders: RawBuilder<unknown>;
}

/** Condition on `imodel_grant as g`: any permission of the hierarchy includes webview. The column is a JSON list of names. */
const webviewGranted = sql`(${sql.join(
  hierarchy.map((permission) => sql`g.permissions like ${sql.lit(`%"${permission}"%`)}`),
  sql` or `,
)})`;

/** A permission that a caller must hold, in a form that can be checked again later. */
export interface ITwinRequirement {
  on: 'itwin';
  id: string;
  permission: Permission | 'member';
  notFound?: ErrorCode;
}
/** The same for an iModel. With `level: 'iTwin'` the permission must be held on its iTwin, whatever is set on the iModel. */
export interface IModelRequirement {
  on: 'imodel';
  id: string;
  permission: Permission;
  level: 'iModel' | 'iTwin';
}
export type Requirement = ITwinRequirement | IModelRequirement;

/** A requirement that was met, and the access that met it. */
export interface MetRequirement {
  requirement: Requirement;
  access: ITwinAccess<ITwinOfIModel> | IModelAccess;
}

/** Reads permissions from the database. The callers of these methods decide how to answer for absent and invisible resources. */
export class Permissions {
  readonly #db: Db;

  constructor(db: Db) {
    this.#db = db;
  }

  /** The access of the caller to the resource of a requirement; undefined if the resource does not exist. */
  async find(caller: Caller, { on, id: text }: Requirement): Promise<ITwinAccess | IModelAccess | undefined> {
    const id = parseGuid(text);
    if (id === undefined) return undefined;
    return on === 'imodel' ? this.onIModel(caller, id) : this.onITwin(caller, id);
  }

  /** Finds the access and checks it with `requireMet`. @throws ApiError */
  async require(caller: Caller, requirement: Requirement): Promise<ITwinAccess | IModelAccess> {
    return requireMet(await this.find(caller, requirement), requirement);
  }

  /**
   * Checks again requirements that were met before. A caller who has lost any permission since then is refused, even if the
   * requirements do not name that permission: other decisions about the request may depend on it.
   * @throws ApiError
   */
  async requireStill(caller: Caller, met: readonly MetRequirement[]): Promise<void> {
    // On PostgreSQL all of them are read in one round trip.
    const found = await Promise.all(met.map(({ requirement }) => this.find(caller, requirement)));
    for (const [n, { requirement, access: before }] of met.entries()) {
      const now = levelsOf(requireMet(found[n], requirement));
      const lost = levelsOf(before).some((permissions, level) =>
        [...permissions].some((permission) => now[level]?.has(permission) !== true),
      );
      if (lost) throw new ApiError('InsufficientPermissions');
    }
  }

  /** Undefined if the iTwin does not exist. */
  async onITwin(caller: Caller, itwinId: string): Promise<ITwinAccess | undefined> {
    if (caller.share !== undefined) return undefined;
    const principal = principalOf(caller);
    const row = await itwinWithOwner.first(this.#db, { itwinId, userId: principal.id });
    if (row === undefined) return undefined;
    const { owned, ...itwin } = row;
    return (await this.#accessTo(itwin, principal, Boolean(owned))).access;
  }

  /** Undefined if the iModel does not exist. */
  async onIModel(caller: Caller, imodelId: string): Promise<IModelAccess | undefined> {
    return caller.share === undefined
      ? this.#ofPrincipal(principalOf(caller), imodelId)
      : this.byShare(caller.share, imodelId);
  }

  /**
   * What the holder of a share may do. Rule of shares: only the one iModel, nothing on its iTwin, and nothing that the creator
   * of the share is not permitted to do now. Undefined if no permission is left.
   */
  async byShare({ iModelId, permission, creator }: HeldShare, imodelId: string): Promise<IModelAccess | undefined> {
    const ofCreator = iModelId === imodelId ? await this.#ofPrincipal(creator, imodelId) : undefined;
    const permissions = new Set([...withIncluded([permission])].filter((each) => ofCreator?.permissions.has(each)));
    if (ofCreator === undefined || permissions.size === 0) return undefined;
    const onITwin: ITwinAccess<ITwinOfIModel> = {
      itwin: ofCreator.onITwin.itwin,
      visible: false,
      administrator: false,
      permissions: new Set(),
      grounds: undefined,
    };
    return { imodel: ofCreator.imodel, onITwin, visible: true, permissions };
  }

  async #ofPrincipal(principal: Principal, imodelId: string): Promise<IModelAccess | undefined> {
    // One statement: on PostgreSQL each statement is a round trip, and every request begins with this one.
    const found = await imodelWithITwin.first(this.#db, { imodelId, userId: principal.id });
    if (found === undefined) return undefined;
    const { itwin, owned, row } = splitRow(found);
    // An iModel that is being created already refers to its source's history, which stays hidden until it is initialized.
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

  /**
   * Which iModels of one iTwin this caller may list. Undefined if all. These are conditions of the list's statement, because any number
   * of iModels may be hidden.
   */
  async listedIModels(caller: Caller, access: ITwinAccess): Promise<ListedIModels | undefined> {
    // Rule of the API: iTwin-level manage and Organization Administrators list all iModels.
    if (access.permissions.has('imodels_manage')) return undefined;
    if ((await securedIModel.first(this.#db, { itwinId: access.itwin.id })) === undefined) return undefined;
    const { id } = principalOf(caller);
    const granted: Granted[] = [{ securedBy: 'users', holders: sql`(${id})` }];
    // Rule of the API: role permissions on an iModel apply only to users who also have webview on the iTwin.
    if (access.permissions.has('imodels_webview'))
      granted.push({ securedBy: 'roles', holders: sql`(${roleIdsOf(this.#db, id, access.itwin.id)})` });
    const open = sql<boolean>`(imodel.secured_by is null)`;
    const held = granted.map(
      ({ securedBy, holders }) =>
        sql<boolean>`(imodel.secured_by = ${sql.lit(securedBy)} and exists (select 1 from imodel_grant as g where g.imodel_id = imodel.id and g.holder_id in ${holders} and ${webviewGranted}))`,
    );
    return {
      condition: sql<boolean>`(${sql.join([open, ...held], sql` or `)})`,
      open,
      granted: granted.map(
        ({ securedBy, holders }) =>
          sql`select m.* from imodel_grant as g cross join imodel as m where g.holder_id in ${holders} and ${webviewGranted} and m.id = g.imodel_id and m.secured_by = ${sql.lit(securedBy)}`,
      ),
    };
  }

  /** Rule of the API: permissions set on an iModel replace those of its iTwin, except `imodels_delete`, which comes from the iTwin. */
  async #effective(
    principal: Principal,
    imodel: IModelTable,
    onITwin: ITwinAccess<ITwinOfIModel>,
    roles: readonly HeldRole[],
  ): Promise<ReadonlySet<Permission>> {
    if (onITwin.administrator || imodel.secured_by === null) return onITwin.permissions;
    const permissions = withIncluded(await this.#grantedOn(imodel, principal, onITwin, roles));
    if (onITwin.permissions.has('imodels_delete')) permissions.add('imodels_delete');
    return permissions;
  }

  /** Rule of the API: role permissions on an iModel apply only to users who also have webview on the iTwin. */
  async #grantedOn(
    imodel: IModelTable,
    principal: Principal,
    onITwin: ITwinAccess<ITwinOfIModel>,
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

  /** Owners and administrators may do everything; roles are only read for other users. */
  async #accessTo<Row extends ITwinOfIModel>(
    itwin: Row,
    principal: Principal,
    owner: boolean,
  ): Promise<{ access: ITwinAccess<Row>; roles: readonly HeldRole[] }> {
    const withoutRoles = accessTo(itwin, principal, [], owner);
    if (withoutRoles.administrator) return { access: withoutRoles, roles: [] };
    const roles = await this.#rolesOf(principal, itwin.id);
    return { access: accessTo(itwin, principal, roles, owner), roles };
  }

  /** Roles that the caller has on an iTwin, directly or through a group. */
  async #rolesOf(principal: Principal, itwinId: string): Promise<HeldRole[]> {
    const rows = await rolesHeld.all(this.#db, { itwinId, userId: principal.id });
    return rows.map((row) => ({ id: row.id, permissions: JSON.parse(row.permissions) as Permission[] }));
  }
}

/** Ids of the roles that a user has on an iTwin, or on any, directly or through a group. */
export function roleIdsOf(db: Db, userId: string, itwinId?: string) {
  let own = db.selectFrom('member').select('role_id').where('user_id', '=', userId);
  let ofGroups = db
    .selectFrom('group_user as u')
    .innerJoin('group_member as g', 'g.group_id', 'u.group_id')
    .select('g.role_id')
    .where('u.user_id', '=', userId);
  if (itwinId !== undefined) {
    own = own.where('itwin_id', '=', itwinId);
    ofGroups = ofGroups.where('g.itwin_id', '=', itwinId);
  }
  return own.union(ofGroups);
}

/** The access on an iTwin as values of `sameGrounds`. */
export interface GroundValues {
  iTwinId: string;
  userId: string;
  organizationId: string | null;
  owner: boolean;
  roles: string;
}

/** @returns undefined for the holder of a share */
export function groundValues({ user }: Caller, access: ITwinAccess<ITwinOfIModel>): GroundValues | undefined {
  const { itwin, grounds } = access;
  if (grounds === undefined) return undefined;
  const roles = grounds.roles
    .map(({ id, permissions }) => `${id} ${JSON.stringify(permissions)}`)
    .sort()
    .join('\n');
  return {
    iTwinId: itwin.id,
    userId: user.id,
    organizationId: itwin.organization_id,
    owner: grounds.owner,
    roles,
  };
}

/**
 * Condition of a statement on PostgreSQL: the iTwin exists, and the caller's permissions on it follow from the same rows as when they
 * were read. If they do not, they may still be sufficient, and have to be read again.
 * @param administrator the roles of owners and administrators do not matter
 */
export function sameGrounds(db: Db, values: GroundValues, administrator: boolean): RawBuilder<boolean> {
  const { iTwinId, userId, organizationId, owner, roles } = values;
  const sameRoles = administrator
    ? sql``
    : sql`and ${roles}::text = (
        select coalesce(string_agg(role.id || ' ' || role.permissions, E'\n' order by role.id), '')
        from role where role.id in (${roleIdsOf(db, userId, iTwinId)}))`;
  return sql<boolean>`exists (
    select 1 from itwin
    where itwin.id = ${iTwinId} and itwin.deleted_at is null
      and itwin.organization_id is not distinct from ${organizationId}::text
      and ${owner}::boolean = exists (
        select 1 from owner where owner.itwin_id = ${iTwinId} and owner.user_id = ${userId})
      ${sameRoles})`;
}

/** The columns of the iTwin under names that do not collide with those of the iModel. */
const itwinColumns = [
  'i.id as itwin: id',
  'i.organization_id as itwin: organization_id',
  'i.owner_id as itwin: owner_id',
  'i.data_center as itwin: data_center',
] as const;

/** A row of the iModel, the columns of its iTwin and whether the principal owns that iTwin. */
type IModelWithITwin = IModelTable & { [C in keyof ITwinOfIModel as `itwin: ${C}`]: ITwinOfIModel[C] } & {
  owned: boolean | number;
};

/** Selects whether a user owns the iTwin of the row. */
export function ownedBy(userId: string, itwin: 'i' | 'itwin') {
  return sql<
    boolean | number
  >`exists (select 1 from owner where owner.itwin_id = ${sql.ref(`${itwin}.id`)} and owner.user_id = ${userId})`.as(
    'owned',
  );
}

const itwinWithOwner = compiledQuery(
  (db, { itwinId, userId }: { itwinId: string; userId: string }) =>
    db
      .selectFrom('itwin')
      .selectAll()
      .select(ownedBy(userId, 'itwin'))
      .where('id', '=', itwinId)
      .where('deleted_at', 'is', null),
  'kept',
);

const imodelWithITwin = compiledQuery(
  (db, { imodelId, userId }: { imodelId: string; userId: string }) =>
    db
      .selectFrom('imodel as m')
      .innerJoin('itwin as i', 'i.id', 'm.itwin_id')
      .selectAll('m')
      .select(itwinColumns)
      .select(ownedBy(userId, 'i'))
      .where('m.id', '=', imodelId)
      .where('m.deleted_at', 'is', null)
      .where('i.deleted_at', 'is', null),
  'kept',
);

/** The roles of a user on an iTwin, directly or through a group. */
const rolesHeld = compiledQuery(
  (db, { itwinId, userId }: { itwinId: string; userId: string }) =>
    db
      .selectFrom('role')
      .select(['id', 'permissions'])
      .where('id', 'in', roleIdsOf(db, userId, itwinId)),
  'kept',
);

/** One iModel of an iTwin with permissions of its own, if there is any. */
const securedIModel = compiledQuery(
  (db, { itwinId }: { itwinId: string }) =>
    db
      .selectFrom('imodel')
      .select('id')
      .where('itwin_id', '=', itwinId)
      .where('deleted_at', 'is', null)
      .where('secured_by', 'is not', null)
      .limit(sql.lit(1)),
  'kept',
);

function splitRow(joined: IModelWithITwin): { row: IModelTable; itwin: ITwinOfIModel; owned: boolean } {
  // Each column by its name: taking the rest of 39 properties was 3.5 % in a profile of GET iModel.
  const row: IModelTable = {
    id: joined.id,
    itwin_id: joined.itwin_id,
    name: joined.name,
    name_order: joined.name_order,
    search_text: joined.search_text,
    description: joined.description,
    extent: joined.extent,
    containers_enabled: joined.containers_enabled,
    geographic_crs: joined.geographic_crs,
    state: joined.state,
    baseline_id: joined.baseline_id,
    history_id: joined.history_id,
    head_index: joined.head_index,
    head_changeset_id: joined.head_changeset_id,
    last_pushed_at: joined.last_pushed_at,
    creator_id: joined.creator_id,
    created_at: joined.created_at,
    clock: joined.clock,
    next_briefcase_id: joined.next_briefcase_id,
    inherited_index: joined.inherited_index,
    secured_by: joined.secured_by,
    deleted_at: joined.deleted_at,
    failed_at: joined.failed_at,
    lineage_id: joined.lineage_id,
    source_id: joined.source_id,
    source_kind: joined.source_kind,
    source_index: joined.source_index,
    source_changeset_id: joined.source_changeset_id,
    search_doc: joined.search_doc,
  };
  const itwin = {
    id: joined['itwin: id'],
    organization_id: joined['itwin: organization_id'],
    owner_id: joined['itwin: owner_id'],
    data_center: joined['itwin: data_center'],
  };
  return { row, itwin, owned: Boolean(joined.owned) };
}

export function principalOf({ user, administeredOrganizationIds }: Caller): Principal {
  return { id: user.id, administeredOrganizationIds };
}

export function accessTo<Row extends ITwinOfIModel>(
  itwin: Row,
  principal: Principal,
  roles: readonly HeldRole[],
  owner: boolean,
): ITwinAccess<Row> {
  const organization =
    itwin.organization_id !== null && principal.administeredOrganizationIds.includes(itwin.organization_id);
  // Clone rule: an Organization Administrator of both organizations may clone between their iTwins.
  // An iTwin without an organization has no administrators except its owners.
  const grounds = { owner, roles };
  if (organization || (owner && itwin.organization_id === null))
    return { itwin, visible: true, administrator: true, permissions: everything, grounds };
  if (owner) return { itwin, visible: true, administrator: true, permissions: everythingOfOwners, grounds };
  return {
    itwin,
    grounds,
    visible: roles.length > 0,
    administrator: false,
    permissions: withIncluded(roles.flatMap((role) => role.permissions)),
  };
}

/** The permissions by level: on the iTwin; for an iModel, on the iModel and on its iTwin. */
function levelsOf(access: ITwinAccess<ITwinOfIModel> | IModelAccess): ReadonlySet<Permission>[] {
  return 'onITwin' in access ? [access.permissions, access.onITwin.permissions] : [access.permissions];
}

export interface HeldRole {
  id: string;
  permissions: Permission[];
}

const everythingOfOwners: ReadonlySet<Permission> = new Set<Permission>([
  ...imodelPermissions,
  ...administrationPermissions,
  'administrator',
]);
const everything: ReadonlySet<Permission> = new Set<Permission>([...everythingOfOwners, 'organization_administrator']);

/** Which iTwins to list: those that the caller owns or is a member of, those that the caller administers, or both. */
export type QueryScope = 'member' | 'administrator' | 'all';

/** Condition on an iTwin row: the caller may see it as its owner, a member or its administrator. */
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

/** Maximum number of organizations whose iTwins are read one after the other; with more, those of all are sorted. */
const organizationsInOrder = 10;

/** The iTwins that a caller may see as the union of conditions, each of which an index can find. Deleted iTwins are included. */
export function iTwinSources(caller: Caller, scope: QueryScope): RawBuilder<boolean>[] {
  const { id } = caller.user;
  const administered = [...new Set(caller.administeredOrganizationIds)];
  const ofMember = sql<boolean>`itwin.id in (select itwin_id from owner where user_id = ${id}
    union select itwin_id from member where user_id = ${id}
    union select g.itwin_id from group_user as u join group_member as g on g.group_id = u.group_id where u.user_id = ${id})`;
  const ofAdministered =
    administered.length > organizationsInOrder
      ? [sql<boolean>`itwin.organization_id in (${sql.join(administered)})`]
      : administered.map((organization) => sql<boolean>`itwin.organization_id = ${organization}`);
  return [...(scope === 'administrator' ? [] : [ofMember]), ...(scope === 'member' ? [] : ofAdministered)];
}

/**
 * Checks the access that was found for a requirement. Rule of this server: 404 for a resource that the caller may not see,
 * 403 for an operation that is not permitted on a visible resource. The required permission is sufficient, even for a caller
 * to whom the iTwin is not visible.
 * @throws ApiError
 */
export function requireMet<Access extends ITwinAccess<ITwinOfIModel> | IModelAccess>(
  found: Access | undefined,
  requirement: Requirement,
): Access {
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
