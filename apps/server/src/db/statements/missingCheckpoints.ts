import { sql, type RawBuilder } from 'kysely';
import type { Db } from '../database.ts';
import type { IModelTable } from '../schema.ts';
import { segmentOf } from './historyRanges.ts';

/** A changeset of an iModel; index 0 is its baseline. */
export interface Place {
  imodelId: string;
  index: number;
}

/** A changeset without a checkpoint, and of its iModel what scheduling one needs. */
export type MissingCheckpoint = Place & IModelColumns;

type IModelColumns = Pick<IModelTable, 'history_id' | 'head_index' | 'baseline_id' | 'itwin_id' | 'creator_id'>;

/** A bounded number of places that were read in order. */
export interface PlacesRead {
  missing: MissingCheckpoint[];
  /** Where the next read continues; undefined at the end. */
  last: Place | undefined;
}

/** Places per statement: about a millisecond on SQLite, whose statements run on the main thread. */
const pageSize = 100;

/** Before every place. */
export const firstPlace: Place = { imodelId: '', index: -1 };

interface Row extends IModelColumns {
  imodel_id: string;
  changeset_index: number;
  missing: 0 | 1;
}

const columns = sql`m.history_id, m.head_index, m.baseline_id, m.itwin_id, m.creator_id`;
const usable = sql`m.deleted_at is null and m.state = 'initialized'`;
const ofBaseline = sql`exists (select 1 from checkpoint as c where c.baseline_id = m.baseline_id)`;
const ofChangeset = sql`exists (select 1 from checkpoint as c where c.changeset_index = v.changeset_index and c.segment_id = ${segmentOf(sql.ref('m.history_id'), sql.ref('v.changeset_index'))})`;

/**
 * The next named versions, and which of them have no checkpoint in any state. It seeks by `named_version_changeset` and checks each
 * version by seeks, so a page costs the same however many versions there are. The left join makes SQLite read the versions first.
 */
export async function versionsWithoutCheckpoint(db: Db, after: Place): Promise<PlacesRead> {
  return read(
    db,
    sql<Row>`select v.imodel_id, v.changeset_index, ${columns},
      case when ${usable} and not (case when v.changeset_index = 0 then ${ofBaseline} else ${ofChangeset} end) then 1 else 0 end as missing
      from named_version as v left join imodel as m on m.id = v.imodel_id
      where (v.imodel_id, v.changeset_index) > (${after.imodelId}, ${after.index})
      order by v.imodel_id, v.changeset_index limit ${sql.lit(pageSize)}`,
  );
}

/** The next iModels, and which of them have a baseline without a checkpoint in any state. */
export async function baselinesWithoutCheckpoint(db: Db, after: Place): Promise<PlacesRead> {
  return read(
    db,
    sql<Row>`select m.id as imodel_id, 0 as changeset_index, ${columns},
      case when ${usable} and not ${ofBaseline} then 1 else 0 end as missing
      from imodel as m where m.id > ${after.imodelId} order by m.id limit ${sql.lit(pageSize)}`,
  );
}

async function read(db: Db, query: RawBuilder<Row>): Promise<PlacesRead> {
  const { rows } = await query.execute(db);
  const places = rows.map(({ imodel_id, changeset_index, missing, ...imodel }) => ({
    missing,
    place: { imodelId: imodel_id, index: changeset_index, ...imodel },
  }));
  return {
    missing: places.flatMap(({ missing, place }) => (missing === 1 ? [place] : [])),
    last: places.length < pageSize ? undefined : places.at(-1)?.place,
  };
}
