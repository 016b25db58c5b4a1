import { randomUUID } from 'node:crypto';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import type Sharp from 'sharp';
import type { IModelAccess } from '../access/permissions.ts';
import { audit } from '../audit.ts';
import type { Database, Tx } from '../db/database.ts';
import { lockInitializedIModel } from '../db/statements/lockIModel.ts';
import type { Caller } from '../domain.ts';
import { ApiError } from '../errors.ts';
import { accountOf, type AccountHolder } from '../quotas/accounts.ts';
import type { BlobStore, StoredObject } from '../storage/blobStore.ts';
import { releaseBlobs, type Blobs } from '../storage/blobs.ts';
import { ContentMismatchError } from '../storage/verifiedReads.ts';

/** Rule of the API: two sizes, pixels. */
const sizes = { small: { width: 400, height: 250 }, large: { width: 800, height: 500 } } as const;
export type ThumbnailSize = keyof typeof sizes;

/** Rule of the API: largest picture that is taken, bytes. */
export const maxThumbnailBytes = 5_242_880;
/** A few bytes can claim to be a picture of terabytes; nobody's thumbnail has more pixels than this. */
const maxPixels = 50_000_000;

/** What an iModel without a picture shows: a quiet wire frame of a building. */
const defaultPicture = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 800 500">
  <rect width="800" height="500" fill="#eef1f5"/>
  <g fill="none" stroke="#9aa7b8" stroke-width="6" stroke-linejoin="round">
    <path d="M400 90 580 180 580 350 400 440 220 350 220 180Z"/><path d="M220 180 400 270 580 180M400 270 400 440"/>
    <path d="M280 210 280 380M340 240 340 410M460 240 460 410M520 210 520 380M220 265 400 355 580 265" stroke-width="3"/>
  </g></svg>`;

/**
 * The image library, loaded when first needed: its binary is an optional package, and an installation without it shall
 * do everything else. @throws ApiError 503
 */
async function imageLibrary(): Promise<typeof Sharp> {
  try {
    return (await import('sharp')).default;
  } catch (error) {
    throw new ApiError('Unavailable', { message: 'This installation cannot handle pictures: the binary of sharp is not installed.', cause: error });
  }
}

/** Pictures of iModels: PNG or JPEG in, PNG of two sizes out. */
export class Thumbnails {
  readonly #database: Database;
  readonly #blobs: Blobs;
  readonly #defaults = new Map<ThumbnailSize, Promise<Buffer>>();

  constructor(database: Database, blobs: Blobs) {
    this.#database = database;
    this.#blobs = blobs;
  }

  /** PNG bytes: the iModel's picture, or the default one. */
  async get(imodelId: string, size: ThumbnailSize): Promise<Buffer> {
    const row = await this.#database.db.selectFrom('thumbnail').selectAll().where('imodel_id', '=', imodelId).executeTakeFirst();
    const blob = row === undefined ? undefined : await this.#blobs.findReadable(size === 'small' ? row.small_blob_id : row.large_blob_id);
    if (blob === undefined) return this.#default(size);
    const bytes = await buffer(await this.#blobs.read(blob));
    if (bytes.length !== blob.size) throw new ContentMismatchError();
    return bytes;
  }

  /** @throws ApiError iModelNotFound, iModelNotInitialized; NotAPictureError */
  async set(caller: Caller, access: IModelAccess, picture: Buffer): Promise<void> {
    const store = this.#blobs.stores.ofDataCenter(access.onITwin.itwin.data_center);
    const stored = await storePictures(store, picture);
    try {
      await this.#database.db.transaction().execute(async (tx) => {
        const imodel = await lockInitializedIModel(tx, this.#database.engine, access.imodel.id, 'push');
        await removeThumbnail(tx, imodel.id, Date.now());
        await tx.insertInto('thumbnail').values({ imodel_id: imodel.id, ...(await insertPictures(tx, store, access.onITwin.itwin, stored)) }).execute();
        await audit(tx, caller, { at: Date.now(), action: 'thumbnail.set', iTwinId: imodel.itwin_id, iModelId: imodel.id });
      });
    } catch (error) {
      // After any other error the commit may have happened; what is then a stray is the collector's.
      if (error instanceof ApiError) await Promise.all([stored.small, stored.large].map(({ key }) => store.delete(key)));
      throw error;
    }
  }

  #default(size: ThumbnailSize): Promise<Buffer> {
    let made = this.#defaults.get(size);
    if (made === undefined) {
      made = imageLibrary().then((sharp) => sharp(Buffer.from(defaultPicture)).resize(sizes[size]).png({ compressionLevel: 9 }).toBuffer());
      this.#defaults.set(size, made);
      made.catch(() => this.#defaults.delete(size));
    }
    return made;
  }
}

type NewObject = StoredObject & { key: string };
/** A picture in both sizes, in the store but not yet known to the database. */
export type StoredPictures = Record<ThumbnailSize, NewObject>;

/** Scales a picture and puts it into a store. @throws NotAPictureError */
export async function storePictures(store: BlobStore, picture: Buffer): Promise<StoredPictures> {
  const put = async (bytes: Buffer): Promise<NewObject> => {
    const key = randomUUID();
    return { key, ...(await store.put(key, Readable.from([bytes]), bytes.length)) };
  };
  return { small: await put(await scaled(picture, 'small')), large: await put(await scaled(picture, 'large')) };
}

/** Makes stored pictures known. @returns the columns that refer to them */
export async function insertPictures(tx: Tx, store: BlobStore, itwin: AccountHolder, { small, large }: StoredPictures): Promise<{ small_blob_id: string; large_blob_id: string }> {
  const ids = { small_blob_id: randomUUID(), large_blob_id: randomUUID() };
  for (const [id, { key, size, sha256 }] of [
    [ids.small_blob_id, small],
    [ids.large_blob_id, large],
  ] as const)
    await tx.insertInto('blob').values({ id, store: store.id, key, size, sha256, state: 'stored', created_at: Date.now(), released_at: null, ...accountOf(itwin) }).execute();
  return ids;
}

/** The bytes are no PNG and no JPEG, or a damaged one. */
export class NotAPictureError extends Error {
  constructor(cause: unknown) {
    super('the bytes are no picture of a supported format', { cause });
    this.name = 'NotAPictureError';
  }
}

/** A picture is much longer than it is high, or the other way round. */
export class ProportionsError extends Error {
  constructor() {
    super('one side of the picture is too long for the other');
    this.name = 'ProportionsError';
  }
}

/** Refuses a picture of which one side is more than `limit` times the other. @throws ProportionsError, NotAPictureError */
export async function requireProportions(picture: Buffer, limit: number): Promise<void> {
  const sharp = await imageLibrary();
  const { width, height } = await (async () => sharp(picture, { limitInputPixels: maxPixels }).metadata())().catch((error: unknown) => {
    // The library refuses some bytes, such as none, before it reads them.
    throw new NotAPictureError(error);
  });
  if (width > limit * height || height > limit * width) throw new ProportionsError();
}

/** Takes an iModel's picture away; its bytes go with the collector. */
export async function removeThumbnail(tx: Tx, imodelId: string, now: number): Promise<void> {
  const row = await tx.selectFrom('thumbnail').selectAll().where('imodel_id', '=', imodelId).executeTakeFirst();
  if (row === undefined) return;
  await tx.deleteFrom('thumbnail').where('imodel_id', '=', imodelId).execute();
  await releaseBlobs(tx, [row.small_blob_id, row.large_blob_id], now);
}

async function scaled(picture: Buffer, size: ThumbnailSize): Promise<Buffer> {
  const sharp = await imageLibrary();
  try {
    const image = sharp(picture, { limitInputPixels: maxPixels, failOn: 'error' });
    const { format } = await image.metadata();
    if (format !== 'png' && format !== 'jpeg') throw new Error(`the format is ${format}`);
    return await image.rotate().resize({ ...sizes[size], fit: 'contain', background: { r: 0, g: 0, b: 0, alpha: 0 } }).png().toBuffer();
  } catch (error) {
    throw new NotAPictureError(error);
  }
}
