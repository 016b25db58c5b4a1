import { randomUUID } from 'node:crypto';
import { audit } from '../access/audit.ts';
import { isUniqueError, type Database, type Tx } from '../db/database.ts';
import type { ITwinImageTable, ITwinTable, RepositoryTable } from '../db/schema.ts';
import type { Caller } from '../domain.ts';
import { ApiError } from '../errors.ts';
import { releaseBlobs, type Blobs } from '../storage/blobs.ts';
import type { Quotas } from '../quotas/quotas.ts';
import type { PictureRequest, Pictures } from '../thumbnails/pictures.ts';
import { insertPictures, withStoredPictures } from '../thumbnails/thumbnails.ts';

/** Rule of the API: neither side of a picture is longer than this many times the other. */
const maxProportion = 5;

/** A repository as it is described, without what the server gives it. */
export type NewRepository = Omit<RepositoryTable, 'id' | 'itwin_id'>;

/** What an iTwin has besides iModels: a picture, and repositories, places outside with more of its data. */
export class ITwinThings {
  readonly #database: Database;
  readonly #blobs: Blobs;
  readonly #quotas: Quotas;
  readonly #pictures: Pictures;

  constructor(database: Database, blobs: Blobs, quotas: Quotas, pictures: Pictures) {
    this.#quotas = quotas;
    this.#database = database;
    this.#blobs = blobs;
    this.#pictures = pictures;
  }

  /** @throws ApiError ImageNotFound */
  async image(iTwinId: string): Promise<ITwinImageTable> {
    const row = await this.#database.db
      .selectFrom('itwin_image')
      .selectAll()
      .where('itwin_id', '=', iTwinId)
      .executeTakeFirst();
    if (row === undefined) throw new ApiError('ImageNotFound');
    return row;
  }

  /** The pictures of some iTwins, in no order. */
  async images(iTwinIds: readonly string[]): Promise<ITwinImageTable[]> {
    if (iTwinIds.length === 0) return [];
    return this.#database.db.selectFrom('itwin_image').selectAll().where('itwin_id', 'in', iTwinIds).execute();
  }

  /** @throws ApiError Unavailable; NotAPictureError, TooManyPixelsError, ProportionsError */
  async setImage(itwin: ITwinTable, picture: Buffer, request: PictureRequest): Promise<ITwinImageTable> {
    const iTwinId = itwin.id;
    const store = this.#blobs.stores.ofDataCenter(itwin.data_center);
    const pictures = await this.#pictures.scale(picture, { ...request, maxProportion: maxProportion });
    return withStoredPictures(store, pictures, (stored) =>
      this.#database.db.transaction().execute(async (tx) => {
        const before = await tx
          .deleteFrom('itwin_image')
          .where('itwin_id', '=', iTwinId)
          .returningAll()
          .executeTakeFirst();
        const row: ITwinImageTable = {
          itwin_id: iTwinId,
          id: randomUUID(),
          ...(await insertPictures(tx, store, itwin, stored)),
        };
        await tx.insertInto('itwin_image').values(row).execute();
        if (before !== undefined) await releaseBlobs(tx, [before.small_blob_id, before.large_blob_id], Date.now());
        await audit(tx, request.caller, { at: Date.now(), action: 'iTwin.setImage', iTwinId });
        return row;
      }),
    );
  }

  /** @throws ApiError ImageNotFound */
  async deleteImage(caller: Caller, iTwinId: string): Promise<void> {
    await this.#database.db.transaction().execute(async (tx) => {
      const row = await tx.deleteFrom('itwin_image').where('itwin_id', '=', iTwinId).returningAll().executeTakeFirst();
      if (row === undefined) throw new ApiError('ImageNotFound');
      await releaseBlobs(tx, [row.small_blob_id, row.large_blob_id], Date.now());
      await audit(tx, caller, { at: Date.now(), action: 'iTwin.deleteImage', iTwinId });
    });
  }

  async repositories(
    iTwinId: string,
    filter: { class?: string | undefined; subClass?: string | undefined },
  ): Promise<RepositoryTable[]> {
    let query = this.#database.db
      .selectFrom('repository')
      .selectAll()
      .where('itwin_id', '=', iTwinId)
      .orderBy('class')
      .orderBy('uri');
    if (filter.class !== undefined) query = query.where('class', '=', filter.class);
    if (filter.subClass !== undefined) query = query.where('sub_class', '=', filter.subClass);
    return query.execute();
  }

  /** @throws ApiError iTwinRepositoryNotFound */
  async repository(iTwinId: string, id: string | undefined): Promise<RepositoryTable> {
    const row = await this.#database.db
      .selectFrom('repository')
      .selectAll()
      .where('itwin_id', '=', iTwinId)
      .where('id', '=', id ?? '')
      .executeTakeFirst();
    if (row === undefined) throw new ApiError('iTwinRepositoryNotFound');
    return row;
  }

  /** @throws ApiError iTwinRepositoryExists; QuotaExceededError */
  async addRepository(caller: Caller, iTwinId: string, repository: NewRepository): Promise<RepositoryTable> {
    const row: RepositoryTable = { id: randomUUID(), itwin_id: iTwinId, ...repository };
    return this.#writeRepository(caller, 'repository.create', row, async (tx) => {
      await this.#quotas.requireRoom(tx, 'repositories', iTwinId);
      await tx.insertInto('repository').values(row).execute();
    });
  }

  /** @throws ApiError iTwinRepositoryExists */
  async updateRepository(
    caller: Caller,
    before: RepositoryTable,
    change: Partial<NewRepository>,
  ): Promise<RepositoryTable> {
    const row = { ...before, ...change };
    const { id, itwin_id, ...columns } = row;
    return this.#writeRepository(caller, 'repository.update', row, async (tx) => {
      await tx.updateTable('repository').set(columns).where('id', '=', id).where('itwin_id', '=', itwin_id).execute();
    });
  }

  async #writeRepository(
    caller: Caller,
    action: string,
    row: RepositoryTable,
    write: (tx: Tx) => Promise<void>,
  ): Promise<RepositoryTable> {
    try {
      return await this.#database.db.transaction().execute(async (tx) => {
        await write(tx);
        // Not with the key or password: the audit is read by more people than those who may use it.
        await audit(tx, caller, {
          at: Date.now(),
          action,
          iTwinId: row.itwin_id,
          detail: { ...row, authentication: row.authentication !== null },
        });
        return row;
      });
    } catch (error) {
      if (isUniqueError(error)) throw new ApiError('iTwinRepositoryExists', { cause: error });
      throw error;
    }
  }

  /** @throws ApiError iTwinRepositoryNotFound */
  async deleteRepository(caller: Caller, iTwinId: string, id: string | undefined): Promise<void> {
    await this.#database.db.transaction().execute(async (tx) => {
      const deleted = await tx
        .deleteFrom('repository')
        .where('itwin_id', '=', iTwinId)
        .where('id', '=', id ?? '')
        .executeTakeFirst();
      if (deleted.numDeletedRows === 0n) throw new ApiError('iTwinRepositoryNotFound');
      await audit(tx, caller, { at: Date.now(), action: 'repository.delete', iTwinId, detail: { id } });
    });
  }
}
