import type { Db } from '../../apps/server/src/db/database.ts';

const tables = [
  'imodel',
  'itwin',
  'role',
  'member',
  'owner',
  'changeset',
  'pending_changeset',
  'briefcase',
  'operation',
  'blob',
  'baseline',
  'audit',
  'imodel_grant',
  'named_version',
  'object_lock',
  'changeset_group',
  'extended_data',
  'mark',
  'share',
  'repository',
  'webhook',
  'user_group',
  'group_member',
  'group_user',
  'thumbnail',
  'itwin_image',
  'transfer',
] as const;

/** Counts the rows of each table that a request may change, except records of access times. */
export async function rowCounts(db: Db): Promise<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (const table of tables)
    counts[table] = Number(
      (
        await db
          .selectFrom(table)
          .select((eb) => eb.fn.countAll<number>().as('count'))
          .executeTakeFirstOrThrow()
      ).count,
    );
  return counts;
}
