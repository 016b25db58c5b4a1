import { randomUUID } from 'node:crypto';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import type { IModelAccess } from '../access/permissions.ts';
import { audit } from '../access/audit.ts';
import type { Database, Tx } from '../db/database.ts';
import { lockInitializedIModel } from '../db/statements/lockIModel.ts';
import { ApiError } from '../errors.ts';
import { accountOf, type AccountHolder } from '../quotas/accounts.ts';
import type { BlobStore, StoredObject } from '../storage/blobStore.ts';
import { releaseBlobs, type Blobs } from '../storage/blobs.ts';
import { ContentMismatchError } from '../storage/verifiedReads.ts';
import type { Graphics } from '../graphics/graphics.ts';
import type { IModelTable } from '../db/schema.ts';
import type { PictureRequest, Pictures } from './pictures.ts';
import type { ThumbnailSize } from './pictureSizes.ts';

/** Thumbnails of iModels. Accepts PNG and JPEG, and stores PNG in two sizes. */
export class Thumbnails {
  readonly #database: Database;
  readonly #blobs: Blobs;
  readonly #pictures: Pictures;
  readonly #graphics: Graphics;

  constructor(database: Database, blobs: Blobs, pictures: Pictures, graphics: Graphics) {
    this.#database = database;
    this.#blobs = blobs;
    this.#pictures = pictures;
    this.#graphics = graphics;
  }

  /** The PNG of the uploaded thumbnail, or else the picture drawn at or before the head, or else the default picture. */
  async get(imodel: IModelTable, size: ThumbnailSize): Promise<Buffer> {
    const row = await this.#database.db
      .selectFrom('thumbnail')
      .selectAll()
      .where('imodel_id', '=', imodel.id)
      .executeTakeFirst();
    const uploaded = row && (size === 'small' ? row.small_blob_id : row.large_blob_id);
    // Before it is initialized, an iModel may refer to the history of its source.
    const blobId =
      uploaded ?? (imodel.state === 'initialized' ? await this.#graphics.picture(imodel, size) : undefined);
    const blob = blobId === undefined ? undefined : await this.#blobs.findReadable(blobId);
    if (blob === undefined) return (await this.#pictures.byDefault())[size];
    const bytes = await buffer(await this.#blobs.read(blob));
    if (bytes.length !== blob.size) throw new ContentMismatchError();
    return bytes;
  }

  /** @throws ApiError iModelNotFound, iModelNotInitialized, Unavailable; NotAPictureError, TooManyPixelsError */
  async set(access: IModelAccess, picture: Buffer, request: PictureRequest): Promise<void> {
    const store = this.#blobs.stores.ofDataCenter(access.onITwin.itwin.data_center);
    await withStoredPictures(store, await this.#pictures.scale(picture, request), async (stored) => {
      await this.#database.db.transaction().execute(async (tx) => {
        const imodel = await lockInitializedIModel(tx, this.#database.engine, access.imodel.id, 'push');
        await removeThumbnail(tx, imodel.id, Date.now());
        await tx
          .insertInto('thumbnail')
          .values({ imodel_id: imodel.id, ...(await insertPictures(tx, store, access.onITwin.itwin, stored)) })
          .execute();
        await audit(tx, request.caller, {
          at: Date.now(),
          action: 'thumbnail.set',
          iTwinId: imodel.itwin_id,
          iModelId: imodel.id,
        });
      });
    });
  }
}

type NewObject = StoredObject & { key: string };
/** A picture in both sizes, stored but without rows in the database yet. */
export type StoredPictures = Record<ThumbnailSize, NewObject>;

/**
 * Stores a picture in both sizes and runs the work that inserts their rows. Deletes the objects if the work is refused.
 */
export async function withStoredPictures<T>(
  store: BlobStore,
  pictures: Record<ThumbnailSize, Buffer>,
  work: (stored: StoredPictures) => Promise<T>,
): Promise<T> {
  const put = async (bytes: Buffer): Promise<NewObject> => {
    const key = randomUUID();
    return { key, ...(await store.put(key, Readable.from([bytes]), bytes.length)) };
  };
  const stored = { small: await put(pictures.small), large: await put(pictures.large) };
  try {
    return await work(stored);
  } catch (error) {
    // After any other error the transaction may have been committed. If it was not, the collector removes the orphans.
    if (error instanceof ApiError) await Promise.all([stored.small, stored.large].map(({ key }) => store.delete(key)));
    throw error;
  }
}

/** Inserts the blob rows of stored pictures. @returns the columns that refer to them */
export async function insertPictures(
  tx: Tx,
  store: BlobStore,
  itwin: AccountHolder,
  { small, large }: StoredPictures,
): Promise<{ small_blob_id: string; large_blob_id: string }> {
  const ids = { small_blob_id: randomUUID(), large_blob_id: randomUUID() };
  for (const [id, { key, size, sha256 }] of [
    [ids.small_blob_id, small],
    [ids.large_blob_id, large],
  ] as const)
    await tx
      .insertInto('blob')
      .values({
        id,
        store: store.id,
        key,
        size,
        sha256,
        state: 'stored',
        created_at: Date.now(),
        released_at: null,
        ...accountOf(itwin),
      })
      .execute();
  return ids;
}

/** Removes the thumbnail of an iModel. The collector deletes its bytes. */
export async function removeThumbnail(tx: Tx, imodelId: string, now: number): Promise<void> {
  const row = await tx.selectFrom('thumbnail').selectAll().where('imodel_id', '=', imodelId).executeTakeFirst();
  if (row === undefined) return;
  await tx.deleteFrom('thumbnail').where('imodel_id', '=', imodelId).execute();
  await releaseBlobs(tx, [row.small_blob_id, row.large_blob_id], now);
}
