import { randomUUID } from 'node:crypto';
import type { IModelAccess } from '../access/permissions.ts';
import { compiledQuery } from '../db/compiledQuery.ts';
import { pageReader, readPage, type Page, type PageRequest } from '../db/keysetPaging.ts';
import { audit } from '../access/audit.ts';
import type { Checkpoints } from '../checkpoints/checkpoints.ts';
import type { Database, Tx } from '../db/database.ts';
import type { IModelTable, NamedVersionTable } from '../db/schema.ts';
import { findChangeset } from '../db/statements/findChangeset.ts';
import { lockInitializedIModel } from '../db/statements/lockIModel.ts';
import { parseChangesetId, type Caller } from '../domain.ts';
import { ApiError } from '../errors.ts';
import { raiseVersion } from '../events/events.ts';
import { contains } from '../imodels/contains.ts';
import { nextTimestamp } from '../imodels/imodelRow.ts';
import type { Quotas } from '../quotas/quotas.ts';

export interface NamedVersionRequest {
  name: string;
  description: string | null;
  /** Null for the baseline. */
  changesetId: string | null;
}

export interface NamedVersionChange {
  name?: string | undefined;
  description?: string | null | undefined;
  state?: NamedVersionTable['state'] | undefined;
}

/** Named versions of the baseline and of changesets. */
export class NamedVersions {
  readonly #database: Database;
  readonly #checkpoints: Checkpoints;
  readonly #quotas: Quotas;

  constructor(database: Database, checkpoints: Checkpoints, quotas: Quotas) {
    this.#quotas = quotas;
    this.#database = database;
    this.#checkpoints = checkpoints;
  }

  /** @throws ApiError ChangesetNotFound, NamedVersionExists, NamedVersionOnChangesetExists, iModelNotInitialized; QuotaExceededError */
  async create(caller: Caller, access: IModelAccess, request: NamedVersionRequest): Promise<NamedVersionTable> {
    return this.#database.db.transaction().execute(async (tx) => {
      const imodel = await lockInitializedIModel(tx, this.#database.engine, access.imodel.id, 'push');
      const changeset =
        request.changesetId === null ? { index: 0, id: '' } : await changesetOf(tx, imodel, request.changesetId);
      await requireFreeName(tx, imodel.id, request.name);
      const taken = await tx
        .selectFrom('named_version')
        .select('id')
        .where('imodel_id', '=', imodel.id)
        .where('changeset_index', '=', changeset.index)
        .executeTakeFirst();
      if (taken !== undefined) throw new ApiError('NamedVersionOnChangesetExists');
      await this.#quotas.requireRoom(tx, 'namedVersions', imodel.id);
      const row: NamedVersionTable = {
        id: randomUUID(),
        imodel_id: imodel.id,
        ...textColumns(request.name, request.description),
        changeset_index: changeset.index,
        changeset_id: changeset.id,
        state: 'visible',
        creator_id: caller.user.id,
        application_id: caller.application.id,
        application_name: caller.application.name,
        created_at: nextTimestamp(imodel),
      };
      await tx.insertInto('named_version').values(row).execute();
      // Rule of the API: a named version schedules a checkpoint of its changeset.
      await this.#checkpoints.ensureScheduled(tx, imodel, changeset.index, { userId: caller.user.id });
      await tx.updateTable('imodel').set({ clock: row.created_at }).where('id', '=', imodel.id).execute();
      await raiseVersion(
        tx,
        imodel,
        { id: row.id, name: row.name, changesetId: changeset.id, changesetIndex: changeset.index },
        caller.user.id,
      );
      await audit(tx, caller, {
        at: row.created_at,
        action: 'namedVersion.create',
        iTwinId: imodel.itwin_id,
        iModelId: imodel.id,
        detail: { id: row.id, name: row.name },
      });
      return row;
    });
  }

  /** @throws ApiError NamedVersionNotFound, NamedVersionExists, iModelNotInitialized */
  async update(
    caller: Caller,
    access: IModelAccess,
    id: string | undefined,
    change: NamedVersionChange,
  ): Promise<NamedVersionTable> {
    return this.#database.db.transaction().execute(async (tx) => {
      const imodel = await lockInitializedIModel(tx, this.#database.engine, access.imodel.id, 'push');
      const before = await find(tx, imodel.id, id);
      if (change.name !== undefined && change.name !== before.name) await requireFreeName(tx, imodel.id, change.name);
      const changed = {
        ...textColumns(
          change.name ?? before.name,
          change.description === undefined ? before.description : change.description,
        ),
        state: change.state ?? before.state,
      };
      await tx.updateTable('named_version').set(changed).where('id', '=', before.id).execute();
      await audit(tx, caller, {
        at: Date.now(),
        action: 'namedVersion.update',
        iTwinId: imodel.itwin_id,
        iModelId: imodel.id,
        detail: { id: before.id, ...change },
      });
      return { ...before, ...changed };
    });
  }

  /** Schedules the checkpoint of a version again. @throws ApiError NamedVersionNotFound, iModelNotInitialized */
  async restartCheckpoint(caller: Caller, access: IModelAccess, id: string | undefined): Promise<NamedVersionTable> {
    return this.#database.db.transaction().execute(async (tx) => {
      const imodel = await lockInitializedIModel(tx, this.#database.engine, access.imodel.id, 'push');
      const version = await find(tx, imodel.id, id);
      await this.#checkpoints.restart(tx, imodel, version.changeset_index, caller.user.id);
      await audit(tx, caller, {
        at: Date.now(),
        action: 'checkpoint.restart',
        iTwinId: imodel.itwin_id,
        iModelId: imodel.id,
        detail: { index: version.changeset_index },
      });
      return version;
    });
  }

  /** @throws ApiError NamedVersionNotFound */
  async get(imodelId: string, id: string | undefined): Promise<NamedVersionTable> {
    return find(this.#database.db, imodelId, id);
  }

  async list(
    imodelId: string,
    filter: { name?: string | undefined; search?: string | undefined; state?: NamedVersionTable['state'] | undefined },
    request: PageRequest,
  ): Promise<Page<NamedVersionTable>> {
    const walks = filter.name === undefined && (filter.search !== undefined || filter.state !== undefined);
    let query = pageReader(this.#database, request, walks)
      .selectFrom('named_version')
      .selectAll()
      .where('imodel_id', '=', imodelId);
    if (filter.name !== undefined) query = query.where('name', '=', filter.name);
    if (filter.state !== undefined) query = query.where('state', '=', filter.state);
    if (filter.search !== undefined) query = query.where(contains(this.#database, 'search_text', filter.search));
    return readPage(query, request);
  }

  /** Ids of the named versions of the given changesets, by index. */
  async onChangesets(imodelId: string, first: number, last: number): Promise<Map<number, string>> {
    const rows = await versionsOnChangesets.all(this.#database.db, { imodelId, first, last });
    return new Map(rows.map((row) => [row.changeset_index, row.id]));
  }
}

const versionsOnChangesets = compiledQuery(
  (db, { imodelId, first, last }: { imodelId: string; first: number; last: number }) =>
    db
      .selectFrom('named_version')
      .select(['changeset_index', 'id'])
      .where('imodel_id', '=', imodelId)
      .where('changeset_index', '>=', first)
      .where('changeset_index', '<=', last),
);

function textColumns(
  name: string,
  description: string | null,
): Pick<NamedVersionTable, 'name' | 'description' | 'search_text'> {
  return { name, description, search_text: `${name}\n${description ?? ''}`.toLowerCase() };
}

async function find(db: Database['db'], imodelId: string, id: string | undefined): Promise<NamedVersionTable> {
  const row =
    id === undefined
      ? undefined
      : await db
          .selectFrom('named_version')
          .selectAll()
          .where('imodel_id', '=', imodelId)
          .where('id', '=', id)
          .executeTakeFirst();
  if (row === undefined) throw new ApiError('NamedVersionNotFound');
  return row;
}

async function changesetOf(tx: Tx, imodel: IModelTable, changesetId: string): Promise<{ index: number; id: string }> {
  const id = parseChangesetId(changesetId);
  const changeset = id === undefined ? undefined : await findChangeset(tx, imodel, { id });
  if (changeset === undefined) throw new ApiError('ChangesetNotFound');
  return changeset;
}

async function requireFreeName(tx: Tx, imodelId: string, name: string): Promise<void> {
  const taken = await tx
    .selectFrom('named_version')
    .select('id')
    .where('imodel_id', '=', imodelId)
    .where('name', '=', name)
    .executeTakeFirst();
  if (taken !== undefined) throw new ApiError('NamedVersionExists');
}
