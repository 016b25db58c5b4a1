import { Permissions } from '../access/permissions.ts';
import type { Db } from '../db/database.ts';
import { ApiError } from '../errors.ts';
import { FinalError } from '../operations/reasons.ts';
import type { TransferOrder } from '../transfer/begin.ts';

/** The requester of a derived iModel has lost a permission that it needs. */
class LostPermissionError extends FinalError {
  constructor(cause: ApiError) {
    super('The requester no longer has the permissions that this iModel needs.', { cause });
    this.name = 'LostPermissionError';
  }
}

/**
 * Checks the requester's permissions again: when a job begins to make a derived iModel, and in the transaction that makes it
 * usable. If the source was deleted meanwhile, its iTwin is checked instead, as long as that is known. If the target was
 * deleted, nothing is checked: the job ends without an effect.
 * @param imodelId of the derived iModel
 * @throws LostPermissionError
 */
export async function requirePermitted(
  db: Db,
  imodelId: string,
  { caller, fromIModelId }: TransferOrder,
): Promise<void> {
  const target = await db
    .selectFrom('imodel as m')
    .innerJoin('operation as o', 'o.imodel_id', 'm.id')
    .select(['m.itwin_id', 'o.kind'])
    .where('m.id', '=', imodelId)
    .where('m.deleted_at', 'is', null)
    .executeTakeFirst();
  if (target === undefined) return;
  const permissions = new Permissions(db);
  try {
    await permissions.require(caller, { on: 'itwin', id: target.itwin_id, permission: 'imodels_manage' });
    if ((await permissions.onIModel(caller, fromIModelId)) === undefined) {
      const iTwinId = target.kind === 'template' ? undefined : await iTwinOfDeleted(db, fromIModelId);
      if (iTwinId !== undefined)
        await permissions.require(caller, { on: 'itwin', id: iTwinId, permission: 'imodels_manage' });
      return;
    }
    if (target.kind === 'template') {
      await permissions.require(caller, {
        on: 'imodel',
        id: fromIModelId,
        permission: 'imodels_read',
        level: 'iModel',
      });
      return;
    }
    await permissions.require(caller, {
      on: 'imodel',
      id: fromIModelId,
      permission: 'imodels_webview',
      level: 'iModel',
    });
    await permissions.require(caller, { on: 'imodel', id: fromIModelId, permission: 'imodels_manage', level: 'iTwin' });
  } catch (error) {
    throw error instanceof ApiError ? new LostPermissionError(error) : error;
  }
}

/** The iTwin of a deleted iModel; undefined if the iModel was collected or the iTwin was deleted too. */
async function iTwinOfDeleted(db: Db, imodelId: string): Promise<string | undefined> {
  const row = await db
    .selectFrom('imodel as m')
    .innerJoin('itwin as i', 'i.id', 'm.itwin_id')
    .select('i.id')
    .where('m.id', '=', imodelId)
    .where('i.deleted_at', 'is', null)
    .executeTakeFirst();
  return row?.id;
}
