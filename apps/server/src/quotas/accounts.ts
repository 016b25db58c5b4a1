import type { Db } from '../db/database.ts';
import type { BlobTable, ITwinTable } from '../db/schema.ts';

/**
 * On whose account a blob counts: the iTwin that had it stored, and the organization of that or, where it belongs to none,
 * whoever made it, because anyone makes iTwins. Whoever shares the blob afterwards has nothing added.
 */
export type Account = Pick<BlobTable, 'itwin_id' | 'account_id'>;
/** What an account follows from. */
export type AccountHolder = Pick<ITwinTable, 'id' | 'organization_id' | 'owner_id'>;

/** What the server stores for itself. */
export const nobodysAccount: Account = { itwin_id: null, account_id: null };

export function accountOf({ id, organization_id, owner_id }: AccountHolder): { itwin_id: string; account_id: string } {
  return { itwin_id: id, account_id: organization_id === null ? `user:${owner_id}` : `org:${organization_id}` };
}

/** The same by the id of an iTwin; of one that is gone only that. */
export async function accountOfITwin(db: Db, iTwinId: string): Promise<Account> {
  const itwin = await db
    .selectFrom('itwin')
    .select(['id', 'organization_id', 'owner_id'])
    .where('id', '=', iTwinId)
    .executeTakeFirst();
  return itwin === undefined ? { itwin_id: iTwinId, account_id: null } : accountOf(itwin);
}
