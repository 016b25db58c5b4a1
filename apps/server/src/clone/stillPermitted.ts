import { Permissions } from '../access/permissions.ts';
import type { Db } from '../db/database.ts';
import { ApiError } from '../errors.ts';
import { FinalError } from '../operations/reasons.ts';
import type { TransferOrder } from '../transfer/begin.ts';

/** Whoever ordered an iModel has lost the permissions for it since. */
export class LostPermissionError extends FinalError {
  constructor(cause: ApiError) {
    super('Whoever asked for the iModel no longer has the permissions that it needs.', { cause });
    this.name = 'LostPermissionError';
  }
}

/**
 * Judges again whether whoever ordered a derived iModel may have it, when a job begins to make it and in the transaction that makes
 * it usable. A source that was deleted meanwhile asks for nothing: what was accepted holds on to its history. Nor does a target that
 * was deleted: its job ends without an effect.
 * @param imodelId of the derived iModel
 * @throws LostPermissionError
 */
export async function requirePermitted(db: Db, imodelId: string, { caller, fromIModelId }: TransferOrder): Promise<void> {
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
    if ((await permissions.onIModel(caller, fromIModelId)) === undefined) return;
    if (target.kind === 'template') {
      await permissions.require(caller, { on: 'imodel', id: fromIModelId, permission: 'imodels_read', level: 'iModel' });
      return;
    }
    await permissions.require(caller, { on: 'imodel', id: fromIModelId, permission: 'imodels_webview', level: 'iModel' });
    await permissions.require(caller, { on: 'imodel', id: fromIModelId, permission: 'imodels_manage', level: 'iTwin' });
  } catch (error) {
    throw error instanceof ApiError ? new LostPermissionError(error) : error;
  }
}
