import type { IModelAccess } from '../access/permissions.ts';
import { audit } from '../audit.ts';
import type { Database, Tx } from '../db/database.ts';
import { lockInitializedIModel } from '../db/statements/lockIModel.ts';
import type { Caller, IModelPermission } from '../domain.ts';
import { ApiError } from '../errors.ts';

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

  constructor(database: Database) {
    this.#database = database;
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
    return rows.map(({ holder_id, permissions }) => ({ holder: holder_id, permissions: JSON.parse(permissions) as IModelPermission[] }));
  }

  /**
   * Sets permissions. A grant without any permission takes the holder's away. `replace` takes away all that are not
   * named; an iModel without grants goes back to its iTwin's permissions.
   * @returns the grants after it, or `otherKind` when the iModel has grants of the other kind
   * @throws ApiError iModelNotFound, iModelNotInitialized, RoleNotFound, UserNotFound
   */
  async set(caller: Caller, access: IModelAccess, kind: GrantKind, grants: readonly Grant[], replace: boolean): Promise<Grant[] | 'otherKind'> {
    const outcome = await this.#database.db.transaction().execute(async (tx) => {
      const imodel = await lockInitializedIModel(tx, this.#database.engine, access.imodel.id, 'push');
      if (imodel.secured_by !== null && imodel.secured_by !== kind) return 'otherKind';
      await requireHolders(tx, imodel.itwin_id, kind, grants);
      await write(tx, imodel.id, grants, replace);
      const left = await tx.selectFrom('imodel_grant').select('imodel_id').where('imodel_id', '=', imodel.id).limit(1).executeTakeFirst();
      await tx
        .updateTable('imodel')
        .set({ secured_by: left === undefined ? null : kind })
        .where('id', '=', imodel.id)
        .execute();
      await audit(tx, caller, { at: Date.now(), action: 'iModel.permissions', iTwinId: imodel.itwin_id, iModelId: imodel.id, detail: { kind, grants, replace } });
      return 'set';
    });
    return outcome === 'otherKind' ? outcome : this.list(access.imodel.id, kind);
  }
}

async function requireHolders(tx: Tx, iTwinId: string, kind: GrantKind, grants: readonly Grant[]): Promise<void> {
  for (const { holder } of grants) {
    const known =
      kind === 'roles'
        ? await tx.selectFrom('role').select('id').where('itwin_id', '=', iTwinId).where('id', '=', holder).executeTakeFirst()
        : await tx.selectFrom('user_account').select('id').where('id', '=', holder).executeTakeFirst();
    if (known === undefined) throw new ApiError(kind === 'roles' ? 'RoleNotFound' : 'UserNotFound');
  }
}

async function write(tx: Tx, imodelId: string, grants: readonly Grant[], replace: boolean): Promise<void> {
  const gone = grants.filter(({ permissions }) => permissions.length === 0).map(({ holder }) => holder);
  let away = tx.deleteFrom('imodel_grant').where('imodel_id', '=', imodelId);
  if (!replace) away = away.where('holder_id', 'in', [...gone, '']);
  await away.execute();
  for (const grant of grants.filter(({ permissions }) => permissions.length > 0)) {
    const permissions = JSON.stringify(grant.permissions);
    await tx
      .insertInto('imodel_grant')
      .values({ imodel_id: imodelId, holder_id: grant.holder, permissions })
      .onConflict((conflict) => conflict.columns(['imodel_id', 'holder_id']).doUpdateSet({ permissions }))
      .execute();
  }
}
