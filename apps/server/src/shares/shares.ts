import { createHash, randomBytes, randomUUID } from 'node:crypto';
import type { IModelAccess } from '../access/permissions.ts';
import { readPage, type Page, type PageRequest } from '../api/paging.ts';
import { audit } from '../audit.ts';
import type { Database } from '../db/database.ts';
import type { ShareTable } from '../db/schema.ts';
import { lockInitializedIModel } from '../db/statements/lockIModel.ts';
import type { Caller } from '../domain.ts';
import { ApiError } from '../errors.ts';

/** Rule of the API: a share lasts six months at most. */
export function latestExpiry(now: number): number {
  const latest = new Date(now);
  latest.setUTCMonth(latest.getUTCMonth() + 6);
  return latest.getTime();
}

/** Keys to one iModel each, shown once, for looking and reading only. Everyone sees the own shares only. */
export class Shares {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** @returns the share and its key, which is not kept. @throws ApiError iModelNotFound, iModelNotInitialized */
  async create(caller: Caller, access: IModelAccess, request: Pick<ShareTable, 'name' | 'permission' | 'expires_at'>): Promise<{ share: ShareTable; key: string }> {
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
      await tx.insertInto('share').values(share).execute();
      const { id, permission } = share;
      await audit(tx, caller, { at: share.created_at, action: 'share.create', iTwinId: imodel.itwin_id, iModelId: imodel.id, detail: { id, permission } });
      return { share, key };
    });
  }

  /** The share that a key opens, while it lasts. */
  async open(key: string): Promise<ShareTable | undefined> {
    return this.#database.db.selectFrom('share').selectAll().where('key_hash', '=', hashOf(key)).where('expires_at', '>', Date.now()).executeTakeFirst();
  }

  /** @throws ApiError ShareNotFound, also for somebody else's */
  async get(caller: Caller, imodelId: string, id: string | undefined): Promise<ShareTable> {
    const row =
      id === undefined
        ? undefined
        : await this.#database.db.selectFrom('share').selectAll().where('id', '=', id).where('imodel_id', '=', imodelId).where('owner_id', '=', caller.user.id).executeTakeFirst();
    if (row === undefined) throw new ApiError('ShareNotFound');
    return row;
  }

  async list(caller: Caller, imodelId: string, request: PageRequest): Promise<Page<ShareTable>> {
    return readPage(this.#database.db.selectFrom('share').selectAll().where('imodel_id', '=', imodelId).where('owner_id', '=', caller.user.id), request);
  }

  /** @throws ApiError ShareNotFound */
  async extend(caller: Caller, imodelId: string, id: string | undefined, expiresAt: number): Promise<ShareTable> {
    const share = await this.get(caller, imodelId, id);
    await this.#database.db.updateTable('share').set({ expires_at: expiresAt }).where('id', '=', share.id).execute();
    return { ...share, expires_at: expiresAt };
  }

  /** @throws ApiError ShareNotFound */
  async revoke(caller: Caller, imodelId: string, id: string | undefined): Promise<void> {
    const share = await this.get(caller, imodelId, id);
    await this.#database.db.deleteFrom('share').where('id', '=', share.id).execute();
  }
}

/** Keys are 256 random bits, so one fast hash hides them; a slow one is for what people think up. */
function hashOf(key: string): string {
  return createHash('sha256').update(key).digest('hex');
}
