import { Permissions, requireMet } from '../access/permissions.ts';
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
    await requireOfSource(db, permissions, target.kind, { caller, fromIModelId });
  } catch (error) {
    throw error instanceof ApiError ? new LostPermissionError(error) : error;
  }
}

/**
 * Checks what the requester needs on the source. Its access is read once: read a second time, a source that was deleted between
 * the two reads would look like one whose requester lost all permissions.
 * @throws ApiError
 */
async function requireOfSource(
  db: Db,
  permissions: Permissions,
  kind: string,
  { caller, fromIModelId: id }: TransferOrder,
): Promise<void> {
  const access = await permissions.onIModel(caller, id);
  if (access === undefined) {
    const iTwinId = kind === 'template' ? undefined : await iTwinOfDeleted(db, id);
    const onITwin = iTwinId === undefined ? undefined : await permissions.onITwin(caller, iTwinId);
    if (iTwinId !== undefined && onITwin !== undefined)
      requireMet(onITwin, { on: 'itwin', id: iTwinId, permission: 'imodels_manage' });
    return;
  }
  if (kind === 'template') {
    requireMet(access, { on: 'imodel', id, permission: 'imodels_read', level: 'iModel' });
    return;
  }
  requireMet(access, { on: 'imodel', id, permission: 'imodels_webview', level: 'iModel' });
  requireMet(access, { on: 'imodel', id, permission: 'imodels_manage', level: 'iTwin' });
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
