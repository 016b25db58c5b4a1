import { sql, type RawBuilder } from 'kysely';
import type { Db } from '../database.ts';
import type { IModelTable } from '../schema.ts';

/** An iModel of a family, which may be deleted. */
export interface FamilyMember extends Pick<
  IModelTable,
  'id' | 'lineage_id' | 'source_id' | 'source_kind' | 'source_index' | 'source_changeset_id' | 'secured_by'
> {
  /** Null if it was deleted before lineage was recorded, like `created_at`. */
  itwin_id: string | null;
  created_at: number | null;
  /** Null if it is deleted, like `head_index`. */
  name: string | null;
  head_index: number | null;
  deleted: number;
}

/** Values that one statement lists. */
const atOnce = 500;

/** The members under a condition, deleted ones included. What is still being created, or failed to be, is no member yet. */
async function members(db: Db, condition: RawBuilder<boolean>, limit: number): Promise<FamilyMember[]> {
  const derivation = sql`id, lineage_id, source_id, source_kind, source_index, source_changeset_id, created_at, itwin_id`;
  const { rows } = await sql<FamilyMember>`select * from (
      select ${derivation}, secured_by, case when deleted_at is null then name end as name,
        case when deleted_at is null then head_index end as head_index,
        case when deleted_at is null then 0 else 1 end as deleted
      from imodel where ${condition} and state = 'initialized' and failed_at is null limit ${sql.lit(limit)}) as present
    union all
    select * from (
      select ${derivation}, null as secured_by, null as name, cast(null as bigint) as head_index, 1 as deleted
      from deleted_imodel where ${condition} limit ${sql.lit(limit)}) as gone
    limit ${sql.lit(limit)}`.execute(db);
  return rows;
}

/** All members of a family except its first ancestor, at most `limit`: one range of an index. */
export function familyOf(db: Db, lineageId: string, limit: number): Promise<FamilyMember[]> {
  return members(db, sql<boolean>`lineage_id = ${lineageId}`, limit);
}

/** What was derived directly from some members of a family, at most `limit`: a seek for each. */
export async function derivedFrom(
  db: Db,
  lineageId: string,
  sourceIds: readonly string[],
  limit: number,
): Promise<FamilyMember[]> {
  const found: FamilyMember[] = [];
  for (let from = 0; from < sourceIds.length && found.length < limit; from += atOnce) {
    const some = sourceIds.slice(from, from + atOnce);
    const condition = sql<boolean>`lineage_id = ${lineageId} and source_id in (${sql.join(some)})`;
    found.push(...(await members(db, condition, limit - found.length)));
  }
  return found;
}

export async function membersById(db: Db, ids: readonly string[]): Promise<FamilyMember[]> {
  const found: FamilyMember[] = [];
  for (let from = 0; from < ids.length; from += atOnce) {
    const some = ids.slice(from, from + atOnce);
    found.push(...(await members(db, sql<boolean>`id in (${sql.join(some)})`, some.length)));
  }
  return found;
}

/** The ids of an iModel and its ancestors, the nearest first, at most `limit`. */
export async function ancestorIds(db: Db, iModelId: string, limit: number): Promise<string[]> {
  const { rows } = await sql<{ id: string }>`with recursive up (id, source_id, steps) as (
      select id, source_id, 0 from imodel where id = ${iModelId}
      union all
      select up.source_id, coalesce(m.source_id, d.source_id), up.steps + 1
      from up left join imodel as m on m.id = up.source_id left join deleted_imodel as d on d.id = up.source_id
      where up.source_id is not null and up.steps < ${sql.lit(limit - 1)})
    select id from up order by steps`.execute(db);
  return rows.map(({ id }) => id);
}
