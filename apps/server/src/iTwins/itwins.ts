import { randomUUID } from 'node:crypto';
import { sql, type RawBuilder } from 'kysely';
import { iTwinSources, seenBy, type QueryScope } from '../access/permissions.ts';
import { readUnionPage, sourceWhere, type Page, type PageRequest } from '../db/keysetPaging.ts';
import { audit } from '../access/audit.ts';
import type { Config } from '../config.ts';
import { isUniqueError, type Database } from '../db/database.ts';
import { unguarded } from '../db/guards.ts';
import type { ITwinTable } from '../db/schemaOfITwins.ts';
import type { Caller } from '../domain.ts';
import { ApiError, detail } from '../errors.ts';
import { raiseDeleted } from '../events/events.ts';
import { contains } from '../imodels/contains.ts';

export interface ITwinRequest {
  class: string;
  subClass: string;
  displayName: string;
  number: string | undefined;
  type: string | null;
  geographicLocation: string | null;
  dataCenterLocation: string | undefined;
  status: string;
  /** An iTwin or an account; null only for the account itself. */
  parentId: string | null;
  organizationId: string | null;
}

export type { QueryScope };

/** The changes of an update; absent properties keep their values. */
export type ITwinChange = {
  [K in 'display_name' | 'number' | 'type' | 'geographic_location' | 'status']?: ITwinTable[K] | undefined;
};

export interface ITwinFilter {
  displayName?: string | undefined;
  number?: string | undefined;
  search?: string | undefined;
  class?: string | undefined;
  subClass?: readonly string[] | undefined;
  type?: string | undefined;
  status?: string | undefined;
  parentId?: string | undefined;
  iTwinAccountId?: string | undefined;
  /** A further condition, from `$filter`. */
  condition?: RawBuilder<boolean> | undefined;
  scope: QueryScope;
  includeInactive: boolean;
}

/** The account is the parent of iTwins without another parent. */
const parentOfRow = sql`coalesce(itwin.parent_id, itwin.organization_id)`;

/** Properties that `$filter` supports. */
export const filterProperties: Readonly<Record<string, FilterProperty>> = {
  id: { value: sql`itwin.id` },
  class: { value: sql`itwin.class` },
  subClass: { value: sql`itwin.sub_class` },
  type: { value: sql`itwin.type` },
  number: { value: sql`itwin.number` },
  displayName: { value: sql`itwin.display_name` },
  geographicLocation: { value: sql`itwin.geographic_location` },
  dataCenterLocation: { value: sql`itwin.data_center` },
  status: { value: sql`itwin.status` },
  parentId: { value: parentOfRow },
  iTwinAccountId: { value: sql`itwin.organization_id` },
  createdDateTime: { value: sql`itwin.created_at`, isTime: true },
  createdBy: { value: sql`itwin.owner_id` },
};

/** Conditions for the iTwins that the caller may see and the filter matches. */
export function iTwinConditions(
  database: Pick<Database, 'engine'>,
  caller: Caller,
  filter: ITwinFilter,
): RawBuilder<boolean>[] {
  return [seenBy(caller, filter.scope), ...filterConditions(database, filter)];
}

/** Rule of the API: inactive iTwins only on request. */
function filterConditions(database: Pick<Database, 'engine'>, filter: ITwinFilter): RawBuilder<boolean>[] {
  const equals = (column: RawBuilder<unknown>, value: string | undefined) =>
    value === undefined ? [] : [sql<boolean>`${column} = ${value}`];
  return [
    ...equals(sql`itwin.display_name`, filter.displayName),
    ...equals(sql`itwin.number`, filter.number),
    ...(filter.search === undefined ? [] : [contains(database, 'itwin.search_text', filter.search)]),
    ...equals(sql`itwin.class`, filter.class),
    ...(filter.subClass === undefined ? [] : [sql<boolean>`itwin.sub_class in (${sql.join([...filter.subClass])})`]),
    ...equals(sql`itwin.type`, filter.type),
    ...equals(parentOfRow, filter.parentId),
    ...equals(sql`itwin.organization_id`, filter.iTwinAccountId),
    ...equals(sql`itwin.status`, filter.status),
    ...(filter.status !== undefined || filter.includeInactive ? [] : [sql<boolean>`itwin.status <> 'Inactive'`]),
    ...(filter.condition === undefined ? [] : [filter.condition]),
  ];
}

/** The text that `$search` searches. */
function searchText(row: Pick<ITwinTable, 'display_name' | 'number'>): string {
  return `${row.display_name}\n${row.number}`.toLowerCase();
}

/** iModels per transaction when their iTwin is deleted. */
const iModelsAtATime = 50;

export class ITwins {
  readonly #database: Database;
  readonly #config: Pick<Config, 'dataCenter' | 'dataCenters'>;

  constructor(database: Database, config: Pick<Config, 'dataCenter' | 'dataCenters'>) {
    this.#database = database;
    this.#config = config;
  }

  /**
   * Creates an iTwin; the caller becomes its owner.
   * @throws ApiError InvalidiTwinsRequest (data center), iTwinExists
   */
  async create(caller: Caller, request: ITwinRequest): Promise<ITwinTable> {
    const dataCenter = request.dataCenterLocation ?? this.#config.dataCenter;
    if (dataCenter !== this.#config.dataCenter && !Object.hasOwn(this.#config.dataCenters, dataCenter))
      throw new ApiError('InvalidiTwinsRequest', {
        message: 'Cannot create iTwin.',
        details: [detail.invalidValue('dataCenterLocation', 'DataCenterLocation value is incorrect.')],
      });
    const id = randomUUID();
    const number = request.number ?? id;
    const row: ITwinTable = {
      id,
      organization_id: request.organizationId,
      owner_id: caller.user.id,
      class: request.class,
      sub_class: request.subClass,
      type: request.type,
      number,
      display_name: request.displayName,
      search_text: searchText({ display_name: request.displayName, number }),
      geographic_location: request.geographicLocation,
      data_center: dataCenter,
      status: request.status,
      parent_id: request.parentId,
      created_at: Date.now(),
      deleted_at: null,
    };
    try {
      return await this.#database.db.transaction().execute(async (tx) => {
        await tx.insertInto('itwin').values(row).execute();
        await tx.insertInto('owner').values({ itwin_id: id, user_id: caller.user.id }).execute();
        await audit(tx, caller, { at: row.created_at, action: 'iTwin.create', iTwinId: id });
        return row;
      });
    } catch (error) {
      if (isUniqueError(error)) throw await this.#exists(row);
      throw error;
    }
  }

  /** When the first iTwin of an organization was made, in milliseconds; now for one without any. */
  async firstOf(organizationId: string): Promise<number> {
    const row = await this.#database.db
      .selectFrom('itwin')
      .select((eb) => eb.fn.min('created_at').as('at'))
      .where('organization_id', '=', organizationId)
      .executeTakeFirst();
    return row?.at == null ? Date.now() : Number(row.at);
  }

  /** @throws ApiError iTwinExists */
  async update(caller: Caller, before: ITwinTable, change: ITwinChange): Promise<ITwinTable> {
    const defined = Object.fromEntries(
      Object.entries(change).filter(([, value]) => value !== undefined),
    ) as Partial<ITwinTable>;
    const row = { ...before, ...defined };
    const changed = { ...defined, search_text: searchText(row) };
    try {
      await this.#database.db.transaction().execute(async (tx) => {
        await tx.updateTable('itwin').set(changed).where('id', '=', before.id).execute();
        await audit(tx, caller, { at: Date.now(), action: 'iTwin.update', iTwinId: before.id, detail: { ...defined } });
      });
    } catch (error) {
      if (isUniqueError(error)) throw await this.#exists(row);
      throw error;
    }
    return { ...row, ...changed };
  }

  /**
   * Deletes an iTwin and all its iModels. Its name can be reused at once. Clones in other iTwins are not affected.
   * @throws ApiError iTwinNotFound
   */
  async delete(caller: Caller, id: string): Promise<void> {
    await this.#database.db.transaction().execute(async (tx) => {
      const now = Date.now();
      const deleted = await tx
        .updateTable('itwin')
        .set({ deleted_at: now })
        .where('id', '=', id)
        .where('deleted_at', 'is', null)
        .executeTakeFirst();
      if (deleted.numUpdatedRows === 0n) throw new ApiError('iTwinNotFound');
      const iModels = await tx
        .selectFrom('imodel')
        .select('id')
        .where('itwin_id', '=', id)
        .where('deleted_at', 'is', null)
        .execute();
      await audit(tx, caller, {
        at: now,
        action: 'iTwin.delete',
        iTwinId: id,
        detail: { iModels: iModels.map((imodel) => imodel.id) },
      });
    });
    // The iModels of a deleted iTwin are unreachable already. They are now deleted in small transactions, so that other writers
    // do not wait long; after a crash the collector deletes the remaining ones. No permission guard applies: nobody has
    // permissions on the iTwin any more.
    await unguarded(() => this.#deleteIModels(caller, id));
  }

  async #deleteIModels(caller: Caller, id: string): Promise<void> {
    for (let deleted = iModelsAtATime; deleted === iModelsAtATime;)
      deleted = await this.#database.db.transaction().execute(async (tx) => {
        const going = tx
          .selectFrom('imodel')
          .select('id')
          .where('itwin_id', '=', id)
          .where('deleted_at', 'is', null)
          .orderBy('id')
          .limit(iModelsAtATime);
        // As in the deletion of a single iModel: prevents new clones of an iModel that is being deleted.
        const ids = (await (this.#database.engine === 'postgres' ? going.forUpdate() : going).execute()).map(
          (imodel) => imodel.id,
        );
        if (ids.length === 0) return 0;
        await tx
          .updateTable('imodel')
          .set({ deleted_at: Date.now(), history_id: null })
          .where('id', 'in', ids)
          .execute();
        for (const imodelId of ids) await raiseDeleted(tx, { id: imodelId, itwin_id: id }, caller.user.id);
        return ids.length;
      });
  }

  async list(caller: Caller, filter: ITwinFilter, request: PageRequest): Promise<Page<ITwinTable>> {
    const sources = iTwinSources(caller, filter.scope);
    // Most filters have no index, and the order may be any: the page may walk all iTwins that the caller has.
    const all = this.#database.scans.selectFrom('itwin').selectAll();
    let query = all.where('deleted_at', 'is', null);
    for (const condition of filterConditions(this.#database, filter)) query = query.where(condition);
    return readUnionPage(
      all,
      sources.map((source) => sourceWhere(query, source, 'itwin.id')),
      'itwin.id',
      request,
    );
  }

  /** Rule of the API: if both are taken, the error names `number`, not `displayName`. */
  async #exists(row: ITwinTable): Promise<ApiError> {
    const others = await this.#database.db
      .selectFrom('itwin')
      .select(['number', 'display_name'])
      .where('organization_id', '=', row.organization_id)
      .where('sub_class', '=', row.sub_class)
      .where((eb) => eb.or([eb('number', '=', row.number), eb('display_name', '=', row.display_name)]))
      .where('id', '!=', row.id)
      .where('deleted_at', 'is', null)
      .execute();
    const taken = [
      ...(others.some(({ number }) => number === row.number) ? ['number'] : []),
      ...(others.some(({ display_name }) => display_name === row.display_name) ? ['displayName'] : []),
    ];
    return new ApiError('iTwinExists', {
      details: taken.map((property) =>
        detail.invalidValue(property, `An iTwin with the specified ${property} already exists.`),
      ),
    });
  }
}

/** A property that filters support: its column, and whether that holds a time in milliseconds. */
export interface FilterProperty {
  value: RawBuilder<unknown>;
  isTime?: boolean;
}
