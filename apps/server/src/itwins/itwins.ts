import { randomUUID } from 'node:crypto';
import { seenBy } from '../access/permissions.ts';
import { readPage, type Page, type PageRequest } from '../api/paging.ts';
import { audit } from '../audit.ts';
import type { Config } from '../config.ts';
import { isUniqueError, type Database } from '../db/database.ts';
import type { ITwinTable } from '../db/schema.ts';
import type { Caller } from '../domain.ts';
import { ApiError, detail } from '../errors.ts';
import { raiseDeleted } from '../events/events.ts';
import { contains } from '../imodels/imodels.ts';

export interface ITwinRequest {
  class: string;
  subClass: string;
  displayName: string;
  number: string | undefined;
  type: string | null;
  geographicLocation: string | null;
  dataCenterLocation: string | undefined;
  status: string;
  parentId: string | null;
}

/** What may be changed of an iTwin; absent stays. */
export type ITwinChange = { [K in 'display_name' | 'number' | 'type' | 'geographic_location' | 'status']?: ITwinTable[K] | undefined };

export interface ITwinFilter {
  displayName?: string | undefined;
  number?: string | undefined;
  search?: string | undefined;
  class?: string | undefined;
  subClass?: readonly string[] | undefined;
  type?: string | undefined;
  status?: string | undefined;
  parentId?: string | undefined;
  includeInactive: boolean;
}

/** What `$search` looks in. */
function searchText(row: Pick<ITwinTable, 'display_name' | 'number'>): string {
  return `${row.display_name}\n${row.number}`.toLowerCase();
}

/** Creates, changes and lists iTwins: what owns iModels, decides who may do what with them, and says where their files lie. */
export class ITwins {
  readonly #database: Database;
  readonly #config: Pick<Config, 'dataCenter' | 'dataCenters'>;

  constructor(database: Database, config: Pick<Config, 'dataCenter' | 'dataCenters'>) {
    this.#database = database;
    this.#config = config;
  }

  /**
   * Creates an iTwin in the caller's organization; the caller becomes its owner.
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
      organization_id: caller.user.organizationId,
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

  /** @throws ApiError iTwinExists */
  async update(caller: Caller, before: ITwinTable, change: ITwinChange): Promise<ITwinTable> {
    const defined = Object.fromEntries(Object.entries(change).filter(([, value]) => value !== undefined)) as Partial<ITwinTable>;
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
   * Deletes an iTwin and every iModel in it: from now on they are gone and its name is free. Clones in other iTwins stay.
   * @throws ApiError iTwinNotFound
   */
  async delete(caller: Caller, id: string): Promise<void> {
    await this.#database.db.transaction().execute(async (tx) => {
      const now = Date.now();
      // As for the deletion of one: no clone is made of what is going away.
      const going = tx.selectFrom('imodel').select('id').where('itwin_id', '=', id).where('deleted_at', 'is', null);
      if (this.#database.engine === 'postgres') await going.forUpdate().execute();
      const deleted = await tx.updateTable('itwin').set({ deleted_at: now }).where('id', '=', id).where('deleted_at', 'is', null).executeTakeFirst();
      if (deleted.numUpdatedRows === 0n) throw new ApiError('iTwinNotFound');
      const iModels = await tx.updateTable('imodel').set({ deleted_at: now, history_id: null }).where('itwin_id', '=', id).where('deleted_at', 'is', null).returning(['id', 'itwin_id']).execute();
      for (const imodel of iModels) await raiseDeleted(tx, imodel, caller.user.id);
      await audit(tx, caller, { at: now, action: 'iTwin.delete', iTwinId: id, detail: { iModels: iModels.map((imodel) => imodel.id) } });
    });
  }

  /** iTwins that the caller may see. Rule of the API: inactive ones only when asked for. */
  async list(caller: Caller, filter: ITwinFilter, request: PageRequest): Promise<Page<ITwinTable>> {
    let query = this.#database.db.selectFrom('itwin').selectAll().where(seenBy(caller));
    if (filter.displayName !== undefined) query = query.where('display_name', '=', filter.displayName);
    if (filter.number !== undefined) query = query.where('number', '=', filter.number);
    if (filter.search !== undefined) query = query.where(contains(this.#database, 'search_text', filter.search));
    if (filter.class !== undefined) query = query.where('class', '=', filter.class);
    if (filter.subClass !== undefined) query = query.where('sub_class', 'in', filter.subClass);
    if (filter.type !== undefined) query = query.where('type', '=', filter.type);
    if (filter.parentId !== undefined) query = query.where('parent_id', '=', filter.parentId);
    if (filter.status !== undefined) query = query.where('status', '=', filter.status);
    else if (!filter.includeInactive) query = query.where('status', '!=', 'Inactive');
    return readPage(query, request);
  }

  async #exists(row: ITwinTable): Promise<ApiError> {
    const sameName = await this.#database.db
      .selectFrom('itwin')
      .select('id')
      .where('organization_id', '=', row.organization_id)
      .where('sub_class', '=', row.sub_class)
      .where('display_name', '=', row.display_name)
      .where('id', '!=', row.id)
      .where('deleted_at', 'is', null)
      .executeTakeFirst();
    const property = sameName === undefined ? 'number' : 'displayName';
    return new ApiError('iTwinExists', { details: [detail.invalidValue(property, `An iTwin with the specified ${property} already exists.`)] });
  }
}
