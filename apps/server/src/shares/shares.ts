import { createHash, randomBytes, randomUUID } from 'node:crypto';
import type { Directory } from '../access/directory.ts';
import { Permissions, type IModelAccess } from '../access/permissions.ts';
import { readPage, type Page, type PageRequest } from '../db/keysetPaging.ts';
import { audit } from '../access/audit.ts';
import type { Database } from '../db/database.ts';
import type { ShareTable } from '../db/schema.ts';
import { lockInitializedIModel } from '../db/statements/lockIModel.ts';
import type { Caller, HeldShare } from '../domain.ts';
import { ApiError } from '../errors.ts';
import type { Quotas } from '../quotas/quotas.ts';

/** Rule of the API: a share is valid for at most six months. */
export function latestExpiry(now: number): number {
  const latest = new Date(now);
  latest.setUTCMonth(latest.getUTCMonth() + 6);
  return latest.getTime();
}

interface SharesParts {
  database: Database;
  permissions: Permissions;
  directory: Directory;
  quotas: Quotas;
  /** Whether all users come from the users file, so that a user removed from it loses access. */
  usersFileOnly: boolean;
}

/**
 * Shares: keys that give read-only access to one iModel and are shown once. A share never exceeds the current permissions of its
 * creator by roles, ownership and the users file. Permissions that only a token grants do not count, because they end with
 * the token. Users see their own shares; administrators of the iTwin see and revoke all.
 */
export class Shares {
  readonly #parts: SharesParts;
  readonly #database: Database;

  constructor(parts: SharesParts) {
    this.#parts = parts;
    this.#database = parts.database;
  }

  /**
   * @returns the share and its key, of which only the hash is stored
   * @throws ApiError InsufficientPermissions (the share would give no access), iModelNotFound, iModelNotInitialized; QuotaExceededError
   */
  async create(
    caller: Caller,
    access: IModelAccess,
    request: Pick<ShareTable, 'name' | 'permission' | 'expires_at'>,
  ): Promise<{ share: ShareTable; key: string }> {
    const key = randomBytes(32).toString('base64url');
    const share: ShareTable = {
      id: randomUUID(),
      imodel_id: access.imodel.id,
      owner_id: caller.user.id,
      ...request,
      key_hash: hashOf(key),
      created_at: Date.now(),
    };
    return this.#database.db.transaction().execute(async (tx) => {
      const imodel = await lockInitializedIModel(tx, this.#database.engine, access.imodel.id, 'clone');
      if ((await this.#worthOf(share, new Permissions(tx))) !== share.permission)
        throw new ApiError('InsufficientPermissions', {
          message:
            'A share gives what its creator holds by roles, ownership or the users file of the server. What the token alone says does not count.',
        });
      // Expired shares give no access and can be deleted.
      await tx.deleteFrom('share').where('imodel_id', '=', imodel.id).where('expires_at', '<=', Date.now()).execute();
      await this.#parts.quotas.requireRoom(tx, 'shares', imodel.id);
      await tx.insertInto('share').values(share).execute();
      const { id, permission } = share;
      await audit(tx, caller, {
        at: share.created_at,
        action: 'share.create',
        iTwinId: imodel.itwin_id,
        iModelId: imodel.id,
        detail: { id, permission },
      });
      return { share, key };
    });
  }

  /** The share of a key, if it has not expired and its creator is still a user. */
  async open(key: string): Promise<HeldShare | undefined> {
    const share = await this.#database.db
      .selectFrom('share')
      .selectAll()
      .where('key_hash', '=', hashOf(key))
      .where('expires_at', '>', Date.now())
      .executeTakeFirst();
    return share === undefined ? undefined : this.#held(share);
  }

  /**
   * Whether a share is still valid, and gives a permission. Links and tokens issued for it end with the share, and with its
   * creator's permission.
   */
  async allows(id: string, permission: ShareTable['permission']): Promise<boolean> {
    const share = await this.#database.db
      .selectFrom('share')
      .selectAll()
      .where('id', '=', id)
      .where('expires_at', '>', Date.now())
      .executeTakeFirst();
    const worth = share === undefined ? undefined : await this.#worthOf(share, this.#parts.permissions);
    return worth === 'imodels_read' || (worth !== undefined && worth === permission);
  }

  /** @throws ApiError ShareNotFound, also for one that the caller may not see */
  async get(caller: Caller, access: IModelAccess, id: string | undefined): Promise<ShareTable> {
    const row = id === undefined ? undefined : await this.#seen(caller, access).where('id', '=', id).executeTakeFirst();
    if (row === undefined) throw new ApiError('ShareNotFound');
    return row;
  }

  async list(caller: Caller, access: IModelAccess, request: PageRequest): Promise<Page<ShareTable>> {
    return readPage(this.#seen(caller, access), request);
  }

  /**
   * Rule of this server: only the creator changes a share; a later expiry requires the same permissions as a new share.
   * @throws ApiError ShareNotFound, InsufficientPermissions
   */
  async changeExpiry(
    caller: Caller,
    access: IModelAccess,
    id: string | undefined,
    expiresAt: number,
  ): Promise<ShareTable> {
    const share = await this.get(caller, access, id);
    const longer = expiresAt > share.expires_at;
    if (share.owner_id !== caller.user.id || (longer && !access.onITwin.permissions.has('imodels_manage')))
      throw new ApiError('InsufficientPermissions');
    await this.#database.db.transaction().execute(async (tx) => {
      await tx.updateTable('share').set({ expires_at: expiresAt }).where('id', '=', share.id).execute();
      await audit(tx, caller, {
        at: Date.now(),
        action: 'share.update',
        iTwinId: access.imodel.itwin_id,
        iModelId: share.imodel_id,
        detail: { id: share.id, expiresAt },
      });
    });
    return { ...share, expires_at: expiresAt };
  }

  /** @throws ApiError ShareNotFound */
  async revoke(caller: Caller, access: IModelAccess, id: string | undefined): Promise<void> {
    const share = await this.get(caller, access, id);
    await this.#database.db.transaction().execute(async (tx) => {
      await tx.deleteFrom('share').where('id', '=', share.id).execute();
      await audit(tx, caller, {
        at: Date.now(),
        action: 'share.revoke',
        iTwinId: access.imodel.itwin_id,
        iModelId: share.imodel_id,
        detail: { id: share.id, creatorId: share.owner_id },
      });
    });
  }

  #seen(caller: Caller, { imodel, onITwin }: IModelAccess) {
    const ofIModel = this.#database.db.selectFrom('share').selectAll().where('imodel_id', '=', imodel.id);
    return onITwin.administrator ? ofIModel : ofIModel.where('owner_id', '=', caller.user.id);
  }

  /** The current permission of a share; undefined if its creator may no longer view the iModel. */
  async #worthOf(share: ShareTable, permissions: Permissions): Promise<ShareTable['permission'] | undefined> {
    const held = this.#held(share);
    const given = held === undefined ? undefined : (await permissions.byShare(held, share.imodel_id))?.permissions;
    return given === undefined ? undefined : given.has('imodels_read') ? 'imodels_read' : 'imodels_webview';
  }

  /** The share and its creator according to the current users file. */
  #held({ id, name, imodel_id, permission, expires_at, owner_id }: ShareTable): HeldShare | undefined {
    const { directory, usersFileOnly } = this.#parts;
    const administered = directory.administeredBy(owner_id);
    if (administered === undefined && usersFileOnly) return undefined;
    return {
      id,
      name,
      iModelId: imodel_id,
      permission,
      expiresAt: expires_at,
      creator: { id: owner_id, administeredOrganizationIds: administered ?? [] },
    };
  }
}

/** Keys have 256 random bits, so a fast hash is enough; slow hashes protect passwords chosen by people. */
function hashOf(key: string): string {
  return createHash('sha256').update(key).digest('hex');
}
