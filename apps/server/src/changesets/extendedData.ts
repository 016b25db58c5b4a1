import type { IModelAccess } from '../access/permissions.ts';
import { pageReader, readPage, type Page, type PageRequest } from '../db/keysetPaging.ts';
import { audit } from '../access/audit.ts';
import { isUniqueError, type Database } from '../db/database.ts';
import type { ChangesetTable, ExtendedDataTable } from '../db/schema.ts';
import type { Caller } from '../domain.ts';
import { ApiError } from '../errors.ts';

/** Rule of the API: the most bytes of JSON per changeset. */
export const maxExtendedDataBytes = 204_800;
/** The same in base64. */
export const maxExtendedDataCharacters = Math.ceil(maxExtendedDataBytes / 3) * 4;

/** JSON that the user who pushed a changeset can attach to it once. */
export class ExtendedData {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /**
   * @param data base64 of JSON text, checked
   * @throws ApiError InsufficientPermissions (pushed by somebody else), iModelNotInitialized, ChangesetExtendedDataExists
   */
  async create(
    caller: Caller,
    access: IModelAccess,
    changeset: ChangesetTable,
    data: string,
  ): Promise<ExtendedDataTable> {
    if (access.imodel.state !== 'initialized') throw new ApiError('iModelNotInitialized');
    if (changeset.creator_id !== caller.user.id) throw new ApiError('InsufficientPermissions');
    const row: ExtendedDataTable = {
      imodel_id: access.imodel.id,
      changeset_index: changeset.index,
      changeset_id: changeset.id,
      data,
    };
    try {
      await this.#database.db.transaction().execute(async (tx) => {
        await tx.insertInto('extended_data').values(row).execute();
        await audit(tx, caller, {
          at: Date.now(),
          action: 'extendedData.create',
          iTwinId: access.imodel.itwin_id,
          iModelId: row.imodel_id,
          detail: { changesetIndex: row.changeset_index },
        });
      });
    } catch (error) {
      if (isUniqueError(error)) throw new ApiError('ChangesetExtendedDataExists', { cause: error });
      throw error;
    }
    return row;
  }

  /** @throws ApiError ChangesetExtendedDataNotFound */
  async get(imodelId: string, changesetIndex: number): Promise<ExtendedDataTable> {
    const row = await this.#database.db
      .selectFrom('extended_data')
      .selectAll()
      .where('imodel_id', '=', imodelId)
      .where('changeset_index', '=', changesetIndex)
      .executeTakeFirst();
    if (row === undefined) throw new ApiError('ChangesetExtendedDataNotFound');
    return row;
  }

  async list(imodelId: string, request: PageRequest): Promise<Page<ExtendedDataTable>> {
    return readPage(
      pageReader(this.#database, request).selectFrom('extended_data').selectAll().where('imodel_id', '=', imodelId),
      request,
      ['data'],
    );
  }
}
