import type { IModelAccess } from '../access/permissions.ts';
import { audit } from '../access/audit.ts';
import type { Database, Tx } from '../db/database.ts';
import { lockInitializedIModel } from '../db/statements/lockIModel.ts';
import type { Caller, IModelPermission } from '../domain.ts';
import { ApiError } from '../errors.ts';
import type { Members } from '../iTwins/members.ts';

/** Permissions of one role or user on one iModel. */
export interface Grant {
  /** Role id or user id. */
  holder: string;
  permissions: IModelPermission[];
}

/** iModel-level permissions are granted by role or by user, never both on one iModel. */
export type GrantKind = 'roles' | 'users';

/** iModel-level permissions. As soon as an iModel has one, they replace the permissions of the iTwin. */
export class IModelPermissions {
  readonly #database: Database;
  readonly #members: Members;

  constructor(database: Database, members: Members) {
    this.#database = database;
    this.#members = members;
  }

  async list(imodelId: string, kind: GrantKind): Promise<Grant[]> {
    const rows = await this.#database.db
      .selectFrom('imodel_grant')
      .innerJoin('imodel', 'imodel.id', 'imodel_grant.imodel_id')
      .select(['imodel_grant.holder_id', 'imodel_grant.permissions'])
      .where('imodel_grant.imodel_id', '=', imodelId)
      .where('imodel.secured_by', '=', kind)
      .orderBy('imodel_grant.holder_id')
      .execute();
    return rows.map(({ holder_id, permissions }) => ({
      holder: holder_id,
      permissions: JSON.parse(permissions) as IModelPermission[],
    }));
  }

  /**
   * Sets permissions. A grant with no permissions also secures the iModel, and gives its holder no access.
   * `replace` removes all other grants; replacing them with an empty list is the only way to return to the permissions of
   * the iTwin.
   * @returns the resulting grants, or `otherKind` if the iModel has grants of the other kind
   * @throws ApiError iModelNotFound, iModelNotInitialized, RoleNotFound, UserNotFound
   */
  async set(
    caller: Caller,
    access: IModelAccess,
    kind: GrantKind,
    grants: readonly Grant[],
    replace: boolean,
  ): Promise<Grant[] | 'otherKind'> {
    if (kind === 'users') await this.#requireUsers(grants);
    const outcome = await this.#database.db.transaction().execute(async (tx) => {
      const imodel = await lockInitializedIModel(tx, this.#database.engine, access.imodel.id, 'push');
      if (imodel.secured_by !== null && imodel.secured_by !== kind) return 'otherKind';
      if (kind === 'roles') await requireRoles(tx, imodel.itwin_id, grants);
      await write(tx, imodel.id, grants, replace);
      // The number of grants does not decide this: a secured iModel whose last grant was deleted with its role stays secured.
      const secured = grants.length > 0 ? kind : replace ? null : imodel.secured_by;
      await tx.updateTable('imodel').set({ secured_by: secured }).where('id', '=', imodel.id).execute();
      await audit(tx, caller, {
        at: Date.now(),
        action: 'iModel.permissions',
        iTwinId: imodel.itwin_id,
        iModelId: imodel.id,
        detail: { kind, grants, replace },
      });
      return 'set';
    });
    return outcome === 'otherKind' ? outcome : this.list(access.imodel.id, kind);
  }

  /** Users in the users file exist even if they have no account yet. @throws ApiError UserNotFound */
  async #requireUsers(grants: readonly Grant[]): Promise<void> {
    for (const { holder } of grants) {
      if ((await this.#members.accountById(holder)) === undefined) throw new ApiError('UserNotFound');
    }
  }
}

async function requireRoles(tx: Tx, iTwinId: string, grants: readonly Grant[]): Promise<void> {
  for (const { holder } of grants) {
    const role = await tx
      .selectFrom('role')
      .select('id')
      .where('itwin_id', '=', iTwinId)
      .where('id', '=', holder)
      .executeTakeFirst();
    if (role === undefined) throw new ApiError('RoleNotFound');
  }
}

async function write(tx: Tx, imodelId: string, grants: readonly Grant[], replace: boolean): Promise<void> {
  if (replace) await tx.deleteFrom('imodel_grant').where('imodel_id', '=', imodelId).execute();
  for (const grant of grants) {
    const permissions = JSON.stringify(grant.permissions);
    await tx
      .insertInto('imodel_grant')
      .values({ imodel_id: imodelId, holder_id: grant.holder, permissions })
      .onConflict((conflict) => conflict.columns(['imodel_id', 'holder_id']).doUpdateSet({ permissions }))
      .execute();
  }
}
