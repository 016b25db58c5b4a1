import { randomUUID } from 'node:crypto';
import { audit } from '../access/audit.ts';
import type { Database } from '../db/database.ts';
import type { ITwinImageTable, ITwinTable } from '../db/schemaOfITwins.ts';
import type { Caller } from '../domain.ts';
import { ApiError } from '../errors.ts';
import { releaseBlobs, type Blobs } from '../storage/blobs.ts';
import type { PictureRequest, Pictures } from '../thumbnails/pictures.ts';
import { insertPictures, withStoredPictures } from '../thumbnails/thumbnails.ts';

/** Rule of the API: neither side of an image is longer than this many times the other. */
const maxProportion = 5;

/** The images of iTwins, in two sizes each. */
export class ITwinImages {
  readonly #database: Database;
  readonly #blobs: Blobs;
  readonly #pictures: Pictures;

  constructor(database: Database, blobs: Blobs, pictures: Pictures) {
    this.#database = database;
    this.#blobs = blobs;
    this.#pictures = pictures;
  }

  /** @throws ApiError ImageNotFound */
  async get(iTwinId: string): Promise<ITwinImageTable> {
    const row = await this.#database.db
      .selectFrom('itwin_image')
      .selectAll()
      .where('itwin_id', '=', iTwinId)
      .executeTakeFirst();
    if (row === undefined) throw new ApiError('ImageNotFound');
    return row;
  }

  /** The images of some iTwins, in no particular order. */
  async ofITwins(iTwinIds: readonly string[]): Promise<ITwinImageTable[]> {
    if (iTwinIds.length === 0) return [];
    return this.#database.db.selectFrom('itwin_image').selectAll().where('itwin_id', 'in', iTwinIds).execute();
  }

  /** @throws ApiError Unavailable; NotAPictureError, TooManyPixelsError, ProportionsError */
  async set(itwin: ITwinTable, picture: Buffer, request: PictureRequest): Promise<ITwinImageTable> {
    const iTwinId = itwin.id;
    const store = this.#blobs.stores.ofDataCenter(itwin.data_center);
    const pictures = await this.#pictures.scale(picture, { ...request, maxProportion });
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
  async delete(caller: Caller, iTwinId: string): Promise<void> {
    await this.#database.db.transaction().execute(async (tx) => {
      const row = await tx.deleteFrom('itwin_image').where('itwin_id', '=', iTwinId).returningAll().executeTakeFirst();
      if (row === undefined) throw new ApiError('ImageNotFound');
      await releaseBlobs(tx, [row.small_blob_id, row.large_blob_id], Date.now());
      await audit(tx, caller, { at: Date.now(), action: 'iTwin.deleteImage', iTwinId });
    });
  }
}
