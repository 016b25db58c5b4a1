import { firstBriefcaseId } from '../briefcases/counter.ts';
import type { Tx } from '../db/database.ts';
import type { IModelTable } from '../db/schema.ts';
import type { Extent } from '../domain.ts';
import { ApiError } from '../errors.ts';

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
  derived?: { nextBriefcaseId: number; inheritedIndex: number };
}

/** Lower-case forms, which both databases sort and search in the same way. */
export function nameColumns(
  name: string,
  description: string | null,
): Pick<IModelTable, 'name' | 'name_order' | 'search_text' | 'description'> {
  const lower = name.toLowerCase();
  return { name, name_order: lower, description, search_text: `${lower}\n${(description ?? '').toLowerCase()}` };
}

/**
 * Inserts the row of a new iModel.
 * @throws ApiError iModelExists. Rule of the API: names are unique within an iTwin. A unique index enforces this, so only one
 * of two concurrent requests succeeds.
 */
export async function insertIModel(tx: Tx, imodel: NewIModel): Promise<void> {
  const inserted = await tx
    .insertInto('imodel')
    .values({
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
    })
    .onConflict((conflict) =>
      conflict.columns(['itwin_id', 'name']).where('deleted_at', 'is', null).where('failed_at', 'is', null).doNothing(),
    )
    .executeTakeFirst();
  if (inserted.numInsertedOrUpdatedRows === 0n) throw await nameTaken(tx, imodel);
}

/** The error for a taken name. If the caller's own unfinished iModel has it, the error says how to proceed, because only the creator can know of that iModel. */
async function nameTaken(tx: Tx, { iTwinId, name, creatorId }: NewIModel): Promise<ApiError> {
  const holder = await tx
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
