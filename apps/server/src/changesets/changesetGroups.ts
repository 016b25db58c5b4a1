import { randomUUID } from 'node:crypto';
import type { IModelAccess } from '../access/permissions.ts';
import { compiledQuery } from '../db/compiledQuery.ts';
import { pageReader, readPage, type Page, type PageRequest } from '../db/keysetPaging.ts';
import { audit } from '../access/audit.ts';
import type { Database, Tx } from '../db/database.ts';
import type { ChangesetGroupTable } from '../db/schema.ts';
import { lockInitializedIModel } from '../db/statements/lockIModel.ts';
import type { Caller } from '../domain.ts';
import { ApiError } from '../errors.ts';
import { nextTimestamp } from '../imodels/imodelRow.ts';

/** Groups of changesets that belong to one piece of work. They belong to their iModel; a clone has none of its source's. */
export class ChangesetGroups {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** @throws ApiError iModelNotFound, iModelNotInitialized */
  async create(caller: Caller, access: IModelAccess, description: string | null): Promise<ChangesetGroupTable> {
    return this.#database.db.transaction().execute(async (tx) => {
      const imodel = await lockInitializedIModel(tx, this.#database.engine, access.imodel.id, 'push');
      const row: ChangesetGroupTable = {
        id: randomUUID(),
        imodel_id: imodel.id,
        state: 'inProgress',
        description,
        creator_id: caller.user.id,
        created_at: nextTimestamp(imodel),
        touched_at: null,
      };
      await tx.insertInto('changeset_group').values(row).execute();
      await tx.updateTable('imodel').set({ clock: row.created_at }).where('id', '=', imodel.id).execute();
      await audit(tx, caller, {
        at: row.created_at,
        action: 'changesetGroup.create',
        iTwinId: imodel.itwin_id,
        iModelId: imodel.id,
        detail: { id: row.id },
      });
      return row;
    });
  }

  /** Closes a group; it cannot be opened again. @throws ApiError ChangesetGroupNotFound, ChangesetGroupIsClosed */
  async complete(caller: Caller, { imodel }: IModelAccess, id: string | undefined): Promise<ChangesetGroupTable> {
    return this.#database.db.transaction().execute(async (tx) => {
      const group = await findGroup(tx, imodel.id, id);
      const closed = await tx
        .updateTable('changeset_group')
        .set({ state: 'completed' })
        .where('id', '=', group.id)
        .where('state', '=', 'inProgress')
        .executeTakeFirst();
      if (closed.numUpdatedRows === 0n) throw new ApiError('ChangesetGroupIsClosed');
      await audit(tx, caller, {
        at: Date.now(),
        action: 'changesetGroup.complete',
        iTwinId: imodel.itwin_id,
        iModelId: imodel.id,
        detail: { id: group.id },
      });
      return { ...group, state: 'completed' };
    });
  }

  /** @throws ApiError ChangesetGroupNotFound */
  async get(imodelId: string, id: string | undefined): Promise<ChangesetGroupTable> {
    return findGroup(this.#database.db, imodelId, id);
  }

  async list(imodelId: string, request: PageRequest): Promise<Page<ChangesetGroupTable>> {
    return readPage(
      pageReader(this.#database, request).selectFrom('changeset_group').selectAll().where('imodel_id', '=', imodelId),
      request,
    );
  }

  /** The group ids of the given changesets, by index. */
  async ofChangesets(imodelId: string, first: number, last: number): Promise<Map<number, string>> {
    const rows = await groupsOnChangesets.all(this.#database.db, { imodelId, first, last });
    return new Map(rows.map((row) => [row.changeset_index, row.group_id]));
  }
}

const groupsOnChangesets = compiledQuery(
  (db, { imodelId, first, last }: { imodelId: string; first: number; last: number }) =>
    db
      .selectFrom('grouped_changeset')
      .select(['changeset_index', 'group_id'])
      .where('imodel_id', '=', imodelId)
      .where('changeset_index', '>=', first)
      .where('changeset_index', '<=', last),
);

/** Adds a changeset to a group. */
export async function joinGroup(tx: Tx, imodelId: string, index: number, groupId: string, now: number): Promise<void> {
  await tx
    .insertInto('grouped_changeset')
    .values({ imodel_id: imodelId, changeset_index: index, group_id: groupId })
    .execute();
  await tx.updateTable('changeset_group').set({ touched_at: now }).where('id', '=', groupId).execute();
}

/** @throws ApiError ChangesetGroupNotFound */
export async function findGroup(
  db: Database['db'],
  imodelId: string,
  id: string | undefined,
): Promise<ChangesetGroupTable> {
  const row =
    id === undefined
      ? undefined
      : await db
          .selectFrom('changeset_group')
          .selectAll()
          .where('imodel_id', '=', imodelId)
          .where('id', '=', id)
          .executeTakeFirst();
  if (row === undefined) throw new ApiError('ChangesetGroupNotFound');
  return row;
}
