import { firstBriefcaseId } from '../briefcases/counter.ts';
import { compiledQuery } from '../db/compiledQuery.ts';
import { isUniqueError, type Database, type Db, type Tx } from '../db/database.ts';
import { defer } from '../db/deferred.ts';
import type { IModelTable } from '../db/schema.ts';
import type { Extent } from '../domain.ts';
import { ApiError } from '../errors.ts';

/** The columns that say what an iModel was derived from. */
type Lineage = Pick<IModelTable, 'lineage_id' | 'source_id' | 'source_kind' | 'source_index' | 'source_changeset_id'>;

/** The properties of a new iModel that the caller sets. */
export interface NewIModel {
  id: string;
  iTwinId: string;
  name: string;
  description: string | null;
  extent: Extent | null;
  containersEnabled: number;
  geographicCrs: string | null;
  state: IModelTable['state'];
  baselineId: string;
  creatorId: string;
  now: number;
  /** Its initial history view: none, or a part of the source's history. */
  view?: Pick<IModelTable, 'history_id' | 'head_index' | 'head_changeset_id' | 'last_pushed_at'>;
  /** What a derived iModel continues from its source; absent if it has no source. */
  derived?: { nextBriefcaseId: number; inheritedIndex: number } & Lineage;
}

/** Lower-case forms, which both databases sort and search in the same way. */
export function nameColumns(
  name: string,
  description: string | null,
): Pick<IModelTable, 'name' | 'name_order' | 'search_text' | 'description'> {
  const lower = name.toLowerCase();
  return { name, name_order: lower, description, search_text: `${lower}\n${(description ?? '').toLowerCase()}` };
}

/** The name of a new iModel is taken; `transactionWithNewIModel` turns it into the error for the client. */
class NameTakenError extends Error {
  readonly imodel: NewIModel;

  constructor(imodel: NewIModel, cause: unknown) {
    super('the name is taken', { cause });
    this.name = 'NameTakenError';
    this.imodel = imodel;
  }
}

/** Runs a transaction that inserts an iModel. @throws ApiError iModelExists */
export async function transactionWithNewIModel<T>({ db }: Database, work: (tx: Tx) => Promise<T>): Promise<T> {
  try {
    return await db.transaction().execute(work);
  } catch (error) {
    throw error instanceof NameTakenError ? await nameTaken(db, error.imodel) : error;
  }
}

/**
 * Inserts the row of a new iModel, in a `transactionWithNewIModel`. Rule of the API: names are unique within an iTwin. A unique
 * index enforces this, so only one of two concurrent requests succeeds. A conflict fails the transaction, rather than being
 * looked for, so that the statement can be deferred.
 */
export async function insertIModel(tx: Tx, imodel: NewIModel): Promise<void> {
  const row: IModelTable = {
    id: imodel.id,
    itwin_id: imodel.iTwinId,
    ...nameColumns(imodel.name, imodel.description),
    extent: imodel.extent === null ? null : JSON.stringify(imodel.extent),
    containers_enabled: imodel.containersEnabled,
    geographic_crs: imodel.geographicCrs,
    state: imodel.state,
    baseline_id: imodel.baselineId,
    ...(imodel.view ?? { history_id: null, head_index: 0, head_changeset_id: '', last_pushed_at: null }),
    creator_id: imodel.creatorId,
    created_at: imodel.now,
    // Rule of the API: push times strictly increase. Inherited changesets may have times ahead of this server's clock.
    clock: Math.max(imodel.now, imodel.view?.last_pushed_at ?? 0),
    next_briefcase_id: imodel.derived?.nextBriefcaseId ?? firstBriefcaseId,
    inherited_index: imodel.derived?.inheritedIndex ?? 0,
    secured_by: null,
    deleted_at: null,
    failed_at: null,
    lineage_id: imodel.derived?.lineage_id ?? null,
    source_id: imodel.derived?.source_id ?? null,
    source_kind: imodel.derived?.source_kind ?? null,
    source_index: imodel.derived?.source_index ?? null,
    source_changeset_id: imodel.derived?.source_changeset_id ?? null,
    search_doc: null,
  };
  await defer(
    tx,
    insertRow.run(tx, row).catch((error: unknown) => {
      throw isNameConflict(error) ? new NameTakenError(imodel, error) : error;
    }),
  );
}

const insertRow = compiledQuery((db, row: IModelTable) =>
  db.insertInto('imodel').values({
    id: row.id,
    itwin_id: row.itwin_id,
    name: row.name,
    name_order: row.name_order,
    search_text: row.search_text,
    description: row.description,
    extent: row.extent,
    containers_enabled: row.containers_enabled,
    geographic_crs: row.geographic_crs,
    state: row.state,
    baseline_id: row.baseline_id,
    history_id: row.history_id,
    head_index: row.head_index,
    head_changeset_id: row.head_changeset_id,
    last_pushed_at: row.last_pushed_at,
    creator_id: row.creator_id,
    created_at: row.created_at,
    clock: row.clock,
    next_briefcase_id: row.next_briefcase_id,
    inherited_index: row.inherited_index,
    secured_by: row.secured_by,
    deleted_at: row.deleted_at,
    failed_at: row.failed_at,
    lineage_id: row.lineage_id,
    source_id: row.source_id,
    source_kind: row.source_kind,
    source_index: row.source_index,
    source_changeset_id: row.source_changeset_id,
    // `search_doc` is null without being named.
  }),
);

/** Whether the unique index on the names of an iTwin refused a row: PostgreSQL names the index, SQLite its columns. */
function isNameConflict(error: unknown): boolean {
  const { constraint, message } = error as { constraint?: string; message?: string };
  return isUniqueError(error) && (constraint === 'imodel_name' || (message ?? '').includes('imodel.name'));
}

/** The error for a taken name. If the caller's own unfinished iModel has it, the error says how to proceed, because only the creator can know of that iModel. */
async function nameTaken(db: Db, { iTwinId, name, creatorId }: NewIModel): Promise<ApiError> {
  const holder = await db
    .selectFrom('imodel as m')
    .innerJoin('operation as o', 'o.imodel_id', 'm.id')
    .select(['m.id', 'o.state'])
    .where('m.itwin_id', '=', iTwinId)
    .where('m.name', '=', name)
    .where('m.deleted_at', 'is', null)
    .where('m.failed_at', 'is', null)
    .where('m.state', '=', 'notInitialized')
    .where('m.creator_id', '=', creatorId)
    .executeTakeFirst();
  if (holder === undefined) return new ApiError('iModelExists');
  const goOn =
    holder.state === 'waitingForFile'
      ? `It waits for its baseline file: upload the file and complete it with POST /imodels/${holder.id}/baselinefile, or give it up with DELETE /imodels/${holder.id}, which frees the name.`
      : `It is still being created: GET /imodels/${holder.id}/operations/create tells how far it is. DELETE /imodels/${holder.id} gives it up and frees the name.`;
  return new ApiError('iModelExists', {
    details: [
      {
        code: 'iModelNotInitialized',
        message: `The iModel '${holder.id}' that you created has this name. ${goOn}`,
        target: 'name',
      },
    ],
  });
}

/** The next timestamp of an iModel. Rule of the API: the timestamps within one iModel strictly increase, in milliseconds. */
export function nextTimestamp(imodel: Pick<IModelTable, 'clock'>): number {
  return Math.max(Date.now(), imodel.clock + 1);
}
