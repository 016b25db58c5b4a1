import { randomUUID } from 'node:crypto';
import type { Readable } from 'node:stream';
import { isPostgres } from '../db/clock.ts';
import type { Db, Tx } from '../db/database.ts';
import { accountOf, type AccountHolder } from '../quotas/accounts.ts';
import type { Quotas } from '../quotas/quotas.ts';
import type { BlobStore, ByteRange, CallOptions } from './blobStore.ts';
import type { Stores } from './stores.ts';

/** Where the bytes of a blob lie. */
export interface BlobPlace {
  /** Id of the store. */
  store: string;
  key: string;
}

/** A blob that can be read. */
export interface ReadableBlob extends BlobPlace {
  id: string;
  size: number;
  sha256: string;
}

/** Where a blob lies, or is to lie. */
export interface Placed {
  store: string;
  /** Null while it is awaited. */
  key: string | null;
}

/** How long the address of a redirect is good. */
const redirectMs = 300_000;

/** Joins the stores with the database rows that make their objects known. Keys are chosen here and nowhere else. */
export class Blobs {
  readonly #db: Db;
  readonly #quotas: Quotas;
  readonly stores: Stores;

  constructor(db: Db, stores: Stores, quotas: Quotas) {
    this.#db = db;
    this.stores = stores;
    this.#quotas = quotas;
  }

  /** Reads a stored blob, or a range of it. */
  async read({ store, key }: BlobPlace, range?: ByteRange, options?: CallOptions): Promise<Readable> {
    return this.stores.get(store).read(key, range, options);
  }

  /** Inserts the row of a blob that is to be uploaded for an iTwin; its bytes come through a link. @throws QuotaExceededError */
  async createPending(tx: Tx, store: BlobStore, itwin: AccountHolder, size: number, now: number): Promise<string> {
    const id = randomUUID();
    const account = accountOf(itwin);
    await this.#quotas.requireBytes(tx, account, size);
    await tx
      .insertInto('blob')
      .values({
        id,
        store: store.id,
        key: null,
        size,
        sha256: null,
        state: 'pending',
        created_at: now,
        released_at: null,
        ...account,
      })
      .execute();
    return id;
  }

  /** The blob, when its bytes are there. */
  async findReadable(id: string): Promise<ReadableBlob | undefined> {
    const row = await this.#db
      .selectFrom('blob')
      .select(['id', 'store', 'key', 'size', 'sha256'])
      .where('id', '=', id)
      .where('state', '=', 'stored')
      .executeTakeFirst();
    return row?.key == null || row.sha256 === null
      ? undefined
      : { id: row.id, store: row.store, key: row.key, size: row.size, sha256: row.sha256 };
  }

  /** Where blobs lie, by id; those that are gone are missing. */
  async places(ids: readonly string[]): Promise<ReadonlyMap<string, Placed>> {
    if (ids.length === 0) return new Map();
    const rows = await this.#db.selectFrom('blob').select(['id', 'store', 'key']).where('id', 'in', ids).execute();
    return new Map(rows.map(({ id, store, key }) => [id, { store, key }]));
  }

  /**
   * Where a client that follows redirects gets a blob from, if the store wants that; good for as long as a download takes to
   * begin.
   */
  async redirectTo({ store, key }: BlobPlace, fileName: string, forPage: boolean): Promise<string | undefined> {
    const { direct } = this.stores.get(store);
    return direct?.downloads === 'redirect' && (direct.pages || !forPage)
      ? direct.downloadLink(key, fileName, Date.now() + redirectMs)
      : undefined;
  }
}

/** Tables with rows that share a blob; pictures have theirs alone. */
const referringTables = ['changeset', 'baseline', 'pending_changeset', 'block'] as const;

/** Marks blobs as no longer needed since `now`, those that something else still refers to left out. */
export async function releaseBlobs(tx: Tx, ids: readonly string[], now: number): Promise<void> {
  if (ids.length === 0) return;
  // Two that let go of one blob at once must not each see the other's row, which is just going: the second waits here, and
  // what it reads afterwards shows what the first has done. SQLite runs one transaction at a time.
  if (isPostgres(tx))
    await tx.selectFrom('blob').select('id').where('id', 'in', ids).orderBy('id').forUpdate().execute();
  await tx
    .updateTable('blob as b')
    .set({ released_at: now })
    .where('b.id', 'in', ids)
    .where((eb) =>
      eb.and(
        referringTables.map((table) =>
          eb.not(eb.exists(eb.selectFrom(table).select('blob_id').whereRef('blob_id', '=', 'b.id'))),
        ),
      ),
    )
    .execute();
}
