import type { Db } from '../db/database.ts';
import type { IModelTable } from '../db/schema.ts';
import type { Caller, Permission, Principal } from '../domain.ts';
import {
  accessTo,
  ownedBy,
  principalOf,
  roleIdsOf,
  withIncluded,
  type HeldRole,
  type ITwinAccess,
  type ITwinOfIModel,
  type Permissions,
} from './permissions.ts';

type SecurableIModel = Pick<IModelTable, 'id' | 'itwin_id' | 'secured_by'>;

/** The access to an iTwin, and the roles that it comes from. */
interface WithRoles {
  access: ITwinAccess<ITwinOfIModel>;
  roles: HeldRole[];
}

/** iModels and iTwins that are read together. */
const atOnce = 500;

/**
 * Which of many iModels, of any iTwins, a caller may see. Three statements for each 500 iModels, whatever the number of iTwins.
 * The decisions are those of `Permissions`, which decides for one iModel.
 */
export async function visibleIModels(
  db: Db,
  permissions: Permissions,
  caller: Caller,
  imodels: readonly SecurableIModel[],
): Promise<Set<string>> {
  const visible = new Set<string>();
  if (caller.share !== undefined) {
    const { share } = caller;
    if (
      imodels.some(({ id }) => id === share.iModelId) &&
      (await permissions.byShare(share, share.iModelId)) !== undefined
    )
      visible.add(share.iModelId);
    return visible;
  }
  const principal = principalOf(caller);
  for (let from = 0; from < imodels.length; from += atOnce) {
    const some = imodels.slice(from, from + atOnce);
    const onITwins = await accessToITwins(db, principal, [...new Set(some.map((each) => each.itwin_id))]);
    const grants = await grantsOn(db, principal, some, onITwins);
    for (const imodel of some) {
      const { access } = onITwins.get(imodel.itwin_id) ?? {};
      if (access === undefined) continue;
      const replaced = imodel.secured_by !== null && !access.administrator;
      const held = replaced ? withIncluded(grants.get(imodel.id) ?? []) : access.permissions;
      if (held.has('imodels_webview') || access.permissions.has('imodels_manage')) visible.add(imodel.id);
    }
  }
  return visible;
}

/** Which of some iTwins the caller administers. Nobody administers a deleted iTwin. */
export async function administeredITwins(db: Db, caller: Caller, ids: readonly string[]): Promise<Set<string>> {
  const administered = new Set<string>();
  if (caller.share !== undefined) return administered;
  for (let from = 0; from < ids.length; from += atOnce)
    for (const [id, { access }] of await accessToITwins(db, principalOf(caller), ids.slice(from, from + atOnce)))
      if (access.administrator) administered.add(id);
  return administered;
}

/** The access to several iTwins, by id. Deleted iTwins are left out. */
async function accessToITwins(db: Db, principal: Principal, ids: readonly string[]): Promise<Map<string, WithRoles>> {
  const itwins = await db
    .selectFrom('itwin')
    .select(['id', 'organization_id', 'owner_id', 'data_center'])
    .select(ownedBy(principal.id, 'itwin'))
    .where('id', 'in', ids)
    .where('deleted_at', 'is', null)
    .execute();
  const rows = await db
    .selectFrom('role')
    .select(['id', 'itwin_id', 'permissions'])
    .where('itwin_id', 'in', ids)
    .where('id', 'in', roleIdsOf(db, principal.id))
    .execute();
  const held = new Map<string, HeldRole[]>(ids.map((id) => [id, []]));
  for (const { id, itwin_id, permissions } of rows)
    held.get(itwin_id)?.push({ id, permissions: JSON.parse(permissions) as Permission[] });
  return new Map(
    itwins.map(({ owned, ...itwin }) => {
      const roles = held.get(itwin.id) ?? [];
      return [itwin.id, { access: accessTo(itwin, principal, roles, Boolean(owned)), roles }];
    }),
  );
}

/** The permissions that a user has been given on several iModels of these iTwins, by iModel. */
async function grantsOn(
  db: Db,
  principal: Principal,
  imodels: readonly SecurableIModel[],
  onITwins: ReadonlyMap<string, WithRoles>,
): Promise<Map<string, Permission[]>> {
  const secured = new Map(imodels.filter((each) => each.secured_by !== null).map((each) => [each.id, each]));
  const granted = new Map<string, Permission[]>();
  if (secured.size === 0) return granted;
  const rows = await db
    .selectFrom('imodel_grant')
    .select(['imodel_id', 'holder_id', 'permissions'])
    .where('imodel_id', 'in', [...secured.keys()])
    .where((eb) => eb.or([eb('holder_id', '=', principal.id), eb('holder_id', 'in', roleIdsOf(db, principal.id))]))
    .execute();
  for (const row of rows) {
    const { itwin_id, secured_by } = secured.get(row.imodel_id) ?? {};
    const { access, roles = [] } = onITwins.get(itwin_id ?? '') ?? {};
    // Rule of the API: role permissions on an iModel apply only to users who also have webview on the iTwin.
    const counts =
      secured_by === 'users'
        ? row.holder_id === principal.id
        : access?.permissions.has('imodels_webview') === true && roles.some(({ id }) => id === row.holder_id);
    if (!counts) continue;
    const before = granted.get(row.imodel_id) ?? [];
    granted.set(row.imodel_id, [...before, ...(JSON.parse(row.permissions) as Permission[])]);
  }
  return granted;
}
