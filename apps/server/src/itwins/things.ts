import { randomUUID } from 'node:crypto';
import { audit } from '../audit.ts';
import { isUniqueError, type Database } from '../db/database.ts';
import type { ITwinImageTable, ITwinTable, RepositoryTable } from '../db/schema.ts';
import type { Caller } from '../domain.ts';
import { ApiError } from '../errors.ts';
import { releaseBlobs, type Blobs } from '../storage/blobs.ts';
import { insertPictures, storePictures } from '../thumbnails/thumbnails.ts';

/** What an iTwin has besides iModels: a picture, and repositories, places outside with more of its data. */
export class ITwinThings {
  readonly #database: Database;
  readonly #blobs: Blobs;

  constructor(database: Database, blobs: Blobs) {
    this.#database = database;
    this.#blobs = blobs;
  }

  /** @throws ApiError ImageNotFound */
  async image(iTwinId: string): Promise<ITwinImageTable> {
    const row = await this.#database.db.selectFrom('itwin_image').selectAll().where('itwin_id', '=', iTwinId).executeTakeFirst();
    if (row === undefined) throw new ApiError('ImageNotFound');
    return row;
  }

  /** @throws NotAPictureError */
  async setImage(caller: Caller, { id: iTwinId, data_center }: ITwinTable, picture: Buffer): Promise<ITwinImageTable> {
    const store = this.#blobs.stores.ofDataCenter(data_center);
    const stored = await storePictures(store, picture);
    return this.#database.db.transaction().execute(async (tx) => {
      const before = await tx.deleteFrom('itwin_image').where('itwin_id', '=', iTwinId).returningAll().executeTakeFirst();
      const row: ITwinImageTable = { itwin_id: iTwinId, id: randomUUID(), ...(await insertPictures(tx, store, stored)) };
      await tx.insertInto('itwin_image').values(row).execute();
      if (before !== undefined) await releaseBlobs(tx, [before.small_blob_id, before.large_blob_id], Date.now());
      await audit(tx, caller, { at: Date.now(), action: 'iTwin.setImage', iTwinId });
      return row;
    });
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

  async repositories(iTwinId: string, filter: { class?: string | undefined; subClass?: string | undefined }): Promise<RepositoryTable[]> {
    let query = this.#database.db.selectFrom('repository').selectAll().where('itwin_id', '=', iTwinId).orderBy('class').orderBy('uri');
    if (filter.class !== undefined) query = query.where('class', '=', filter.class);
    if (filter.subClass !== undefined) query = query.where('sub_class', '=', filter.subClass);
    return query.execute();
  }

  /** @throws ApiError iTwinRepositoryExists */
  async addRepository(caller: Caller, iTwinId: string, repository: Pick<RepositoryTable, 'class' | 'sub_class' | 'uri'>): Promise<RepositoryTable> {
    const row: RepositoryTable = { id: randomUUID(), itwin_id: iTwinId, ...repository };
    try {
      return await this.#database.db.transaction().execute(async (tx) => {
        await tx.insertInto('repository').values(row).execute();
        await audit(tx, caller, { at: Date.now(), action: 'repository.create', iTwinId, detail: { ...row } });
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
      const deleted = await tx.deleteFrom('repository').where('itwin_id', '=', iTwinId).where('id', '=', id ?? '').executeTakeFirst();
      if (deleted.numDeletedRows === 0n) throw new ApiError('iTwinRepositoryNotFound');
      await audit(tx, caller, { at: Date.now(), action: 'repository.delete', iTwinId, detail: { id } });
    });
  }
}
