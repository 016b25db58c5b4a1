import { sql, type RawBuilder } from 'kysely';
import type { Config } from '../config.ts';
import type { Db } from '../db/database.ts';
import type { TransferTable } from '../db/schema.ts';

type Condition = RawBuilder<boolean>;

/**
 * Which contents that a store has already a copy takes as they are. Taking those of another organization would be faster than copying
 * them, and so tell whoever asks for the copy that somebody else has the same file. Within an organization that is no secret.
 */
export interface Sharing {
  /** On a blob `b` of a changeset. */
  changeset: Condition;
  /** On a baseline `l`. */
  baseline: Condition;
  /** On a block `k` of a checkpoint. */
  block: Condition;
}

const always = sql<boolean>`1 = 1`;

/** What the copy into one iTwin may share. */
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
  // Until it has all files, the copy itself sees those of its source, which lie in another store.
  const seesChangeset = (segment: RawBuilder<string>, index: RawBuilder<number>): Condition => sql<boolean>`exists (
    select 1 from history_segment as h join imodel as m on m.history_id = h.history_id and m.head_index >= ${index}
    where h.segment_id = ${segment} and h.first_index <= ${index} and h.last_index >= ${index} and ${own})`;
  // Baselines of new iModels are everybody's.
  const seesBaseline = (baseline: RawBuilder<string>): Condition =>
    sql<boolean>`(${baseline} like 'seed-%' or exists (select 1 from imodel as m where m.baseline_id = ${baseline} and ${own}))`;
  return {
    changeset: sql<boolean>`exists (select 1 from changeset as c where c.blob_id = b.id and ${seesChangeset(sql`c.segment_id`, sql`c."index"`)})`,
    baseline: seesBaseline(sql`l.id`),
    block: sql<boolean>`exists (select 1 from model_file_block as f join checkpoint as p on p.file_id = f.file_id
      where f.block_id = k.id and (${seesBaseline(sql`p.baseline_id`)} or ${seesChangeset(sql`p.segment_id`, sql`p.changeset_index`)}))`,
  };
}
