import { sql, type RawBuilder } from 'kysely';
import type { Config } from '../config.ts';
import type { Db } from '../db/database.ts';
import type { TransferTable } from '../db/schema.ts';
import { historiesWith } from '../db/statements/historyRanges.ts';

type Condition = RawBuilder<boolean>;

/**
 * Conditions on the contents of the target store that a transfer may share instead of copying them. Sharing those of another
 * organization would take less time than copying, which would reveal that the other one has the same file. Within an
 * organization that is no secret.
 */
export interface Sharing {
  /** Holds for the blob `b` of a changeset that may be shared. */
  changeset: Condition;
  /** Holds for a baseline `l`. */
  baseline: Condition;
  /** Holds for a block `k` of a checkpoint. */
  block: Condition;
}

const always = sql<boolean>`1 = 1`;

/** The conditions for one transfer. @param scope whether contents of the whole store or only of the organization are shared */
export async function sharingOf(
  db: Db,
  { imodel_id }: TransferTable,
  scope: Config['transfers']['share'],
): Promise<Sharing> {
  if (scope === 'store') return { changeset: always, baseline: always, block: always };
  const { itwin_id, organization_id } = await db
    .selectFrom('imodel as m')
    .innerJoin('itwin as t', 't.id', 'm.itwin_id')
    .select(['m.itwin_id', 't.organization_id'])
    .where('m.id', '=', imodel_id)
    .executeTakeFirstOrThrow();
  const own =
    organization_id === null
      ? sql<boolean>`m.itwin_id = ${itwin_id}`
      : sql<boolean>`m.itwin_id in (select t.id from itwin as t where t.organization_id = ${organization_id})`;
  // Until its transfer has ended, the target itself sees the files of its source; those are in another store.
  const seesChangeset = (segment: RawBuilder<string>, index: RawBuilder<number>): Condition => sql<boolean>`exists (
    select 1 from ${historiesWith(segment, index)} as h cross join imodel as m where m.history_id = h.id and m.head_index >= ${index} and ${own})`;
  // The seeds of new iModels are the same for everyone.
  const seesBaseline = (baseline: RawBuilder<string>): Condition =>
    sql<boolean>`(${baseline} like 'seed-%' or exists (select 1 from imodel as m where m.baseline_id = ${baseline} and ${own}))`;
  return {
    changeset: sql<boolean>`exists (select 1 from changeset as c where c.blob_id = b.id and ${seesChangeset(sql`c.segment_id`, sql`c."index"`)})`,
    baseline: seesBaseline(sql`l.id`),
    block: sql<boolean>`exists (select 1 from model_file_block as f join checkpoint as p on p.file_id = f.file_id
      where f.block_id = k.id and (${seesBaseline(sql`p.baseline_id`)} or ${seesChangeset(sql`p.segment_id`, sql`p.changeset_index`)}))`,
  };
}
