import { randomUUID } from 'node:crypto';
import { sql, type SelectQueryBuilder } from 'kysely';
import type { ITwinAccess, ListedIModels } from '../access/permissions.ts';
import { compiledShapes, limitInShape, limitOf } from '../db/compiledQuery.ts';
import {
  pageOf,
  pageReader,
  readPage,
  readUnionPage,
  type PageSource,
  type Page,
  type PageRequest,
} from '../db/keysetPaging.ts';
import { audit } from '../access/audit.ts';
import { isUniqueError, type Database } from '../db/database.ts';
import type { Engine } from '../db/engine.ts';
import type { IModelTable, OperationTable, Schema } from '../db/schema.ts';
import { lockIModel, lockInitializedIModel } from '../db/statements/lockIModel.ts';
import type { Caller, Extent, IModelState } from '../domain.ts';
import { ApiError } from '../errors.ts';
import type { Seeds } from '../baselines/baselines.ts';
import { raiseCreated, raiseDeleted } from '../events/events.ts';
import type { Quotas } from '../quotas/quotas.ts';
import type { Blobs } from '../storage/blobs.ts';
import { contains } from './contains.ts';
import { insertOperation } from './createOperation.ts';
import { insertIModel, nameColumns, transactionWithNewIModel } from './imodelRow.ts';
import type { SearchIndex } from './searchIndex.ts';
import { deleteSearchKeys, isOneOf, valuesOf } from './searchKeys.ts';

/** The properties of a new iModel that the request sets. */
export interface IModelRequest {
  name: string;
  description: string | null;
  extent: Extent | null;
  containersEnabled: number;
  geographicCrs: string | null;
  /** Size of the baseline file that will be uploaded, bytes; if absent, the iModel is empty. */
  baselineFileSize?: number | undefined;
}

type IModelColumn = keyof IModelTable;
type Rows = SelectQueryBuilder<Schema, 'imodel', IModelTable>;

export interface IModelChange {
  name?: string | undefined;
  description?: string | null | undefined;
  extent?: Extent | null | undefined;
}

/** Creates, changes, lists and deletes iModels. */
export class IModels {
  readonly #database: Database;
  readonly #blobs: Blobs;
  readonly #seeds: Seeds;
  readonly #quotas: Quotas;
  readonly #searchIndex: SearchIndex;

  /** @param seeds the baseline that every new empty iModel starts from */
  constructor(database: Database, blobs: Blobs, seeds: Seeds, quotas: Quotas, searchIndex: SearchIndex) {
    this.#searchIndex = searchIndex;
    this.#quotas = quotas;
    this.#database = database;
    this.#blobs = blobs;
    this.#seeds = seeds;
  }

  /**
   * Creates an iModel: either an empty one, which is initialized at once, or one that waits for the upload of its baseline.
   * @returns the new row, and the pending blob of the baseline, if any
   * @throws ApiError iModelExists; QuotaExceededError
   */
  async create(
    caller: Caller,
    to: ITwinAccess,
    request: IModelRequest,
  ): Promise<{ imodel: IModelTable; uploadBlobId: string | undefined }> {
    const now = Date.now();
    const store = this.#blobs.stores.ofDataCenter(to.itwin.data_center);
    const { id, uploadBlobId } = await transactionWithNewIModel(this.#database, async (tx) => {
      await this.#quotas.requireIModel(tx, to.itwin);
      const id = randomUUID();
      const { baselineFileSize } = request;
      let baselineId = this.#seeds.get(store.id) as string;
      let blobId: string | undefined;
      if (baselineFileSize !== undefined) {
        blobId = await this.#blobs.createPending(tx, store, to.itwin, baselineFileSize, now);
        baselineId = randomUUID();
        await tx
          .insertInto('baseline')
          .values({ id: baselineId, blob_id: blobId, state: 'waitingForFile', created_at: now })
          .execute();
      }
      const waits = blobId !== undefined;
      await insertIModel(tx, {
        id,
        iTwinId: to.itwin.id,
        name: request.name,
        description: request.description,
        extent: request.extent,
        containersEnabled: request.containersEnabled,
        geographicCrs: request.geographicCrs,
        state: waits ? 'notInitialized' : 'initialized',
        baselineId,
        creatorId: caller.user.id,
        now,
      });
      await insertOperation(tx, {
        imodel_id: id,
        kind: 'create',
        state: waits ? 'waitingForFile' : 'successful',
        changesets: 0,
        created_at: now,
        finished_at: waits ? null : now,
      });
      if (!waits) await raiseCreated(tx, { id, itwin_id: to.itwin.id, creator_id: caller.user.id });
      await audit(tx, caller, { at: now, action: 'iModel.create', iTwinId: to.itwin.id, iModelId: id });
      return { id, uploadBlobId: blobId };
    });
    return { imodel: await this.get(id), uploadBlobId };
  }

  /** @throws ApiError iModelNotFound */
  async get(id: string): Promise<IModelTable> {
    const row = await this.#database.db
      .selectFrom('imodel')
      .selectAll()
      .where('id', '=', id)
      .where('deleted_at', 'is', null)
      .executeTakeFirst();
    if (row === undefined) throw new ApiError('iModelNotFound');
    return row;
  }

  async createOperation(imodelId: string): Promise<OperationTable> {
    return this.#database.db
      .selectFrom('operation')
      .selectAll()
      .where('imodel_id', '=', imodelId)
      .executeTakeFirstOrThrow();
  }

  /**
   * @param columns those that are needed besides the ones of the order: all of 100 iModels take four times as long to read
   * @param listed the iModels that the caller may list; undefined for all
   */
  async list<C extends IModelColumn>(
    iTwinId: string,
    columns: readonly C[],
    listed: ListedIModels | undefined,
    filter: { name?: string | undefined; search?: string | undefined; state?: IModelState | undefined },
    request: PageRequest,
  ): Promise<Page<Pick<IModelTable, C>>> {
    const { name, search, state } = filter;
    const ofOrder = request.keys.map(({ column }) => column as IModelColumn);
    const selected = [...new Set<IModelColumn>([...columns, ...ofOrder])];
    if (listed === undefined && name === undefined && search === undefined && state === undefined) {
      const page = await this.#firstPage(iTwinId, selected, request);
      if (page !== undefined) return page;
    }
    // A name has an index of its own. Other conditions are checked while walking the iModels of the iTwin.
    const walks = name === undefined && (listed !== undefined || search !== undefined || state !== undefined);
    const db = pageReader(this.#database, request, walks);
    const all = db.selectFrom('imodel').select(selected) as Rows;
    const found = search === undefined ? undefined : await this.#searchIndex.find(iTwinId, search);
    const filtered = (rows: Rows): Rows => {
      let query = rows.where('deleted_at', 'is', null);
      query =
        found === undefined
          ? query.where('itwin_id', '=', iTwinId)
          : // With a condition on the iTwin as well, a database may choose to walk all of its iModels.
            query.where(isOneOf(db, 'id', sql`select value from ${valuesOf(db, found, 'text')}`));
      if (name !== undefined) query = query.where('name', '=', name);
      // A failed creation does not hold its name, and clients take the first result. It can be found by its state.
      if (name !== undefined && state !== 'notInitialized') query = query.where('failed_at', 'is', null);
      if (state !== undefined) query = query.where('state', '=', state);
      if (search !== undefined) query = query.where(contains(this.#database, 'search_text', search));
      return query;
    };
    if (listed === undefined) return readPage(filtered(all), request);
    if (name !== undefined || found !== undefined) return readPage(filtered(all).where(listed.condition), request);
    const sources = [
      filtered(all.where(listed.open)),
      ...listed.granted.map((rows) => {
        // The offset keeps both databases from merging the statement into the one around it, and then walking all iModels in order.
        const first = this.#database.engine === 'postgres' ? sql`${rows} offset 0` : sql`${rows} limit -1 offset 0`;
        return filtered(db.selectFrom(sql<IModelTable>`(${first})`.as('granted')) as unknown as Rows);
      }),
    ].map((query): PageSource => ({ query: query, id: 'id' }));
    return readUnionPage(all, sources, 'imodel.id', request);
  }

  /** The first page of all iModels of an iTwin, which clients read most often; undefined for other pages. */
  async #firstPage(
    iTwinId: string,
    columns: readonly IModelColumn[],
    request: PageRequest,
  ): Promise<Page<IModelTable> | undefined> {
    const { keys, top, cursor, skip } = request;
    if (cursor !== undefined || skip !== undefined) return undefined;
    const { db, engine } = this.#database;
    const limit = top + 1;
    const order = JSON.stringify(keys.map(({ column, descending }) => [column, descending]));
    const shape = firstOf(engine, columns.join(' '), order, limitInShape(engine, limit));
    const rows = await shape.all(db, { iTwinId, limit });
    return pageOf(rows as IModelTable[], request, (row, { column }) => row[column as IModelColumn] as string | number);
  }

  /** @throws ApiError iModelNotFound, iModelNotInitialized, iModelExists */
  async update(caller: Caller, id: string, change: IModelChange): Promise<IModelTable> {
    try {
      await this.#database.db.transaction().execute(async (tx) => {
        const row = await lockInitializedIModel(tx, this.#database.engine, id, 'push');
        const description = change.description === undefined ? row.description : change.description;
        const named = nameColumns(change.name ?? row.name, description);
        // The search index takes the iModel out when its text changes, by a trigger.
        if (named.search_text !== row.search_text) await deleteSearchKeys(tx, row);
        await tx
          .updateTable('imodel')
          .set({
            ...named,
            ...(change.extent !== undefined && {
              extent: change.extent === null ? null : JSON.stringify(change.extent),
            }),
          })
          .where('id', '=', id)
          .execute();
        await audit(tx, caller, {
          at: Date.now(),
          action: 'iModel.update',
          iTwinId: row.itwin_id,
          iModelId: id,
          detail: { ...change },
        });
      });
    } catch (error) {
      if (isUniqueError(error)) throw new ApiError('iModelExists', { cause: error });
      throw error;
    }
    return this.get(id);
  }

  /**
   * Deletes an iModel. Its name can be reused at once. Data that clones share is kept; the collector removes everything that
   * only this iModel used.
   * @throws ApiError iModelNotFound
   */
  async delete(caller: Caller, id: string): Promise<void> {
    await this.#database.db.transaction().execute(async (tx) => {
      const row = await lockIModel(tx, this.#database.engine, id, 'delete');
      if (row === undefined) throw new ApiError('iModelNotFound');
      const now = Date.now();
      await tx.updateTable('imodel').set({ deleted_at: now, history_id: null }).where('id', '=', id).execute();
      await raiseDeleted(tx, row, caller.user.id);
      await audit(tx, caller, {
        at: now,
        action: 'iModel.delete',
        iTwinId: row.itwin_id,
        iModelId: id,
        detail: { name: row.name },
      });
    });
  }
}

const firstOf = compiledShapes(
  (db, values: { iTwinId: string; limit: number }, engine: Engine, columns: string, order: string, limit: number) => {
    let query = db
      .selectFrom('imodel')
      .select(columns.split(' ') as IModelColumn[])
      .where('itwin_id', '=', values.iTwinId)
      .where('deleted_at', 'is', null);
    for (const [column, descending] of JSON.parse(order) as [string, boolean][])
      query = query.orderBy(sql.ref(column), descending ? 'desc' : 'asc');
    return query.limit(limitOf(engine, limit, values.limit));
  },
);
