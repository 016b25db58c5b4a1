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

/** How iModel-level permissions are given: by role or by user, never both on one iModel. */
export type GrantKind = 'roles' | 'users';

/** iModel-level permissions, which replace the iTwin's as soon as there is one. */
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
   * Sets permissions. A grant without any permission secures the iModel like any other and gives its holder nothing.
   * `replace` removes the grants that are not named; replacing them by none at all is the one way back to the
   * permissions of the iTwin.
   * @returns the grants after it, or `otherKind` when the iModel has grants of the other kind
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
      // An iModel that is secured and whose last grant went with its role stays closed, so the grants that are left do not count.
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

  /** Users of the users file count although they have not been here yet. @throws ApiError UserNotFound */
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
