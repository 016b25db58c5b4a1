import type { Db } from '../db/database.ts';
import type { BlobTable } from '../db/schema.ts';
import type { ITwinTable } from '../db/schemaOfITwins.ts';

/**
 * The accounts to which a blob is charged: the iTwin that stored it, and that iTwin's organization. Without an organization
 * it is charged to the creator of the iTwin, because any user can create iTwins. iModels that share the blob later are not
 * charged.
 */
export type Account = Pick<BlobTable, 'itwin_id' | 'account_id'>;
/** The columns that determine an account. */
export type AccountHolder = Pick<ITwinTable, 'id' | 'organization_id' | 'owner_id'>;

/** For blobs that the server stores for itself. */
export const nobodysAccount: Account = { itwin_id: null, account_id: null };

export function accountOf({ id, organization_id, owner_id }: AccountHolder): { itwin_id: string; account_id: string } {
  return { itwin_id: id, account_id: organization_id === null ? `user:${owner_id}` : `org:${organization_id}` };
}

/** The account by the id of an iTwin; without an organization or creator if the iTwin was deleted. */
export async function accountOfITwin(db: Db, iTwinId: string): Promise<Account> {
  const itwin = await db
    .selectFrom('itwin')
    .select(['id', 'organization_id', 'owner_id'])
    .where('id', '=', iTwinId)
    .executeTakeFirst();
  return itwin === undefined ? { itwin_id: iTwinId, account_id: null } : accountOf(itwin);
}
