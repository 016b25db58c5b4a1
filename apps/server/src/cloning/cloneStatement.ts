import { randomUUID } from 'node:crypto';
import { sql } from 'kysely';
import { groundValues, sameGrounds, type GroundValues } from '../access/permissions.ts';
import { compiledShapes } from '../db/compiledQuery.ts';
import { isForeignKeyError, isUniqueError, type Database } from '../db/database.ts';
import { orderedId } from '../db/orderedId.ts';
import { isLost } from '../db/postgres/pool.ts';
import { keepsOutcomes } from '../db/requestOutcomes.ts';
import { nameColumns } from '../imodels/imodelRow.ts';
import { QuotaExceededError, type Quotas } from '../quotas/quotas.ts';
import type { Stores } from '../storage/stores.ts';
import { remoteStoreFor, type CloneRequest } from './copyIModel.ts';

/**
 * Clones an iModel on PostgreSQL with one statement, which costs the server and PostgreSQL half of what the transaction costs them
 * (docs/performance.md). It has an effect only if nothing has changed since the permissions were read and nothing else has to be
 * written.
 * @returns the id of the clone; undefined if nothing was written, and the transaction has to decide what to do or to answer
 */
export async function cloneInOneStatement(
  { database, stores, quotas }: { database: Database; stores: Stores; quotas: Quotas },
  request: CloneRequest,
): Promise<string | undefined> {
  const values = database.engine === 'postgres' ? valuesOf(stores, request) : undefined;
  // The results of a request with a key are stored in its transaction.
  if (values === undefined || keepsOutcomes()) return undefined;
  const { source, target } = request;
  try {
    await quotas.requireIModel(database.db, target.itwin);
    const sameITwin = source.onITwin.itwin.id === target.itwin.id;
    const statement = insertClone(sameITwin, source.onITwin.administrator, target.administrator);
    return (await statement.first(database.db, values)) === undefined ? undefined : values.id;
  } catch (error) {
    // The transaction words the errors, and begins again if a push and the collector have replaced the history.
    if (error instanceof QuotaExceededError || isUniqueError(error) || isForeignKeyError(error)) return undefined;
    if (!isLost(error)) throw error;
    // The statement may have been committed. If it still is to be, its name keeps the transaction from making a second clone.
    const made = await database.db.selectFrom('imodel').select('id').where('id', '=', values.id).executeTakeFirst();
    return made?.id;
  }
}

/** Values are null-safe strings and numbers; those of the two iTwins have the names of `GroundValues` with a prefix. */
type CloneValues = Prefixed<'source'> &
  Prefixed<'target'> & {
    id: string;
    userId: string;
    sourceId: string;
    sourceName: string;
    sourceDescription: string | null;
    name: string;
    nameOrder: string;
    searchText: string;
    description: string | null;
    containersEnabled: number;
    now: number;
    operationId: string;
    auditId: string;
    applicationId: string;
  };
type Prefixed<Side extends string> = { [K in keyof GroundValues as `${Side}: ${K}`]: GroundValues[K] };

/** Undefined if the clone needs more than its three rows, or less than the whole history. */
function valuesOf(stores: Stores, request: CloneRequest): CloneValues | undefined {
  const { caller, source, target, upTo } = request;
  const ofSource = groundValues(caller, source.onITwin);
  const ofTarget = groundValues(caller, target);
  if (ofSource === undefined || ofTarget === undefined) return undefined;
  if (upTo !== undefined || remoteStoreFor(stores, source, target) !== undefined) return undefined;
  const { imodel } = source;
  const names = nameColumns(request.name ?? imodel.name, request.description ?? imodel.description);
  return {
    ...prefixed('source', ofSource),
    ...prefixed('target', ofTarget),
    id: randomUUID(),
    userId: caller.user.id,
    sourceId: imodel.id,
    sourceName: imodel.name,
    sourceDescription: imodel.description,
    name: names.name,
    nameOrder: names.name_order,
    searchText: names.search_text,
    description: names.description,
    containersEnabled: request.containersEnabled ?? 0,
    now: Date.now(),
    operationId: randomUUID(),
    auditId: orderedId(),
    applicationId: caller.application.id,
  };
}

function prefixed<Side extends string>(side: Side, values: GroundValues): Prefixed<Side> {
  return Object.fromEntries(
    Object.entries(values).map(([name, value]) => [`${side}: ${name}`, value]),
  ) as Prefixed<Side>;
}

function groundsIn(values: CloneValues, side: 'source' | 'target'): GroundValues {
  return {
    iTwinId: values[`${side}: iTwinId`],
    userId: values[`${side}: userId`],
    organizationId: values[`${side}: organizationId`],
    owner: values[`${side}: owner`],
    roles: values[`${side}: roles`],
  };
}

/**
 * Inserts the iModel, its create operation and the audit entry, with the values that `insertDerivedIModel` gives them.
 *
 * The source is locked as in the transaction (FOR KEY SHARE), and the row that is locked is the one that is copied, so the head is
 * fixed here. One that is being deleted is skipped, so nothing waits between the check of the permissions and the effect. It is
 * found by its id alone: with more conditions, PostgreSQL has chosen the index of all iModels of the iTwin.
 */
const insertClone = compiledShapes(
  (db, v: CloneValues, sameITwin: boolean, administersSource: boolean, administersTarget: boolean) => {
    const permitted = [
      sameGrounds(db, groundsIn(v, 'target'), administersTarget),
      ...(sameITwin ? [] : [sameGrounds(db, groundsIn(v, 'source'), administersSource)]),
    ];
    const statement = sql<{ id: string }>`with source as (
        select * from imodel
        where id = ${v.sourceId} and deleted_at is null and state = 'initialized' and secured_by is null
        for key share skip locked
      ), clone as (
        insert into imodel (id, itwin_id, name, name_order, search_text, description, extent, containers_enabled,
          geographic_crs, state, baseline_id, history_id, head_index, head_changeset_id, last_pushed_at, creator_id,
          created_at, clock, next_briefcase_id, inherited_index, lineage_id, source_id, source_kind, source_index,
          source_changeset_id)
        select ${v.id}, ${v['target: iTwinId']}, ${v.name}, ${v.nameOrder}, ${v.searchText}, ${v.description},
          extent, ${v.containersEnabled}::bigint, geographic_crs, 'initialized', baseline_id,
          case when head_index > 0 then history_id end, head_index, head_changeset_id,
          case when head_index > 0 then last_pushed_at end, ${v.userId}, ${v.now}::bigint,
          greatest(${v.now}::bigint, case when head_index > 0 then last_pushed_at end), next_briefcase_id, head_index,
          coalesce(lineage_id, id), id, 'clone', head_index, head_changeset_id
        from source
        where itwin_id = ${v['source: iTwinId']} and name = ${v.sourceName}
          and description is not distinct from ${v.sourceDescription}::text
          and ${sql.join(permitted, sql` and `)}
          and not exists (
            select 1 from webhook where webhook.itwin_id = ${v['target: iTwinId']} and webhook.is_active = 1)
        returning id, itwin_id, source_id, source_index, source_changeset_id, created_at
      ), operated as (
        insert into operation (id, imodel_id, kind, state, changesets, created_at, finished_at,
          cloned_from_imodel_id, cloned_from_changeset_id, changesets_done, bytes, bytes_done, bytes_under_way)
        select ${v.operationId}, id, 'clone', 'successful', source_index, created_at, created_at,
          source_id, source_changeset_id, 0, 0, 0, 0
        from clone
      )
      insert into audit (id, at, actor_id, application_id, action, itwin_id, imodel_id, detail)
      select ${v.auditId}, created_at, ${v.userId}, ${v.applicationId}, 'iModel.clone', itwin_id, id,
        '{"from":"' || source_id || '","upToIndex":' || source_index || '}'
      from clone
      returning imodel_id as id`;
    return { compile: () => statement.compile(db) };
  },
);
