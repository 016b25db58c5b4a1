import { randomUUID } from 'node:crypto';
import type { Readable } from 'node:stream';
import { sql } from 'kysely';
import { isPostgres } from '../db/clock.ts';
import { compiledQuery } from '../db/compiledQuery.ts';
import type { Db, Tx } from '../db/database.ts';
import { defer } from '../db/deferred.ts';
import { accountOf, type Account, type AccountHolder } from '../quotas/accounts.ts';
import type { Quotas } from '../quotas/quotas.ts';
import type { BlobStore, ByteRange, CallOptions, OpenObject } from './blobStore.ts';
import type { Stores } from './stores.ts';

/** Where the bytes of a blob are stored. */
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

/** Where a blob is or will be stored. */
export interface Placed {
  store: string;
  /** Null while the blob is pending. */
  key: string | null;
}

/** Lifetime of the address in a redirect, milliseconds. */
const redirectMs = 300_000;

/** Connects the stores with the blob rows that refer to their objects. */
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

  /** How to open a stored blob without a stream; undefined if its store has streams only. */
  opener({ store, key }: BlobPlace): ((range?: ByteRange, options?: CallOptions) => Promise<OpenObject>) | undefined {
    const found = this.stores.get(store);
    const openObject = found.openObject?.bind(found);
    return openObject === undefined ? undefined : (range, options) => openObject(key, range, options);
  }

  /** Inserts the row of a blob that will be uploaded for an iTwin through a link. @throws QuotaExceededError */
  async createPending(tx: Tx, store: BlobStore, itwin: AccountHolder, size: number, now: number): Promise<string> {
    const id = randomUUID();
    const account = accountOf(itwin);
    await this.#quotas.requireBytes(tx, account, size);
    await defer(tx, insertPending.run(tx, { id, store: store.id, size, now, ...account }));
    return id;
  }

  /** The blob, if its bytes are stored. */
  async findReadable(id: string): Promise<ReadableBlob | undefined> {
    const row = await storedBlob.first(this.#db, { id });
    return row?.key == null || row.sha256 === null
      ? undefined
      : { id: row.id, store: row.store, key: row.key, size: row.size, sha256: row.sha256 };
  }

  /** The places of blobs, by id. Ids of blobs that do not exist are omitted. */
  async places(ids: readonly string[]): Promise<ReadonlyMap<string, Placed>> {
    if (ids.length === 0) return new Map();
    const rows = await this.#db.selectFrom('blob').select(['id', 'store', 'key']).where('id', 'in', ids).execute();
    return new Map(rows.map(({ id, store, key }) => [id, { store, key }]));
  }

  /**
   * The address to redirect a download to, if the store supports it. Its lifetime only needs to cover the start of the
   * download.
   */
  async redirectTo({ store, key }: BlobPlace, fileName: string, forPage: boolean): Promise<string | undefined> {
    const { direct } = this.stores.get(store);
    return direct?.downloads === 'redirect' && (direct.pages || !forPage)
      ? direct.downloadLink(key, fileName, Date.now() + redirectMs)
      : undefined;
  }
}

/** A new blob whose upload is expected. */
interface PendingBlob extends Account {
  id: string;
  store: string;
  size: number;
  now: number;
}

const insertPending = compiledQuery((db, { id, store, size, now, itwin_id, account_id }: PendingBlob) =>
  db.insertInto('blob').values({
    id,
    store,
    key: null,
    size,
    sha256: null,
    state: 'pending',
    created_at: now,
    released_at: null,
    itwin_id,
    account_id,
  }),
);

const storedBlob = compiledQuery((db, { id }: { id: string }) =>
  db
    .selectFrom('blob')
    .select(['id', 'store', 'key', 'size', 'sha256'])
    .where('id', '=', id)
    .where('state', '=', sql.lit('stored')),
);

/** Tables whose rows may share a blob. Pictures do not share blobs. */
const referringTables = ['changeset', 'baseline', 'pending_changeset', 'block', 'graphics_file'] as const;

/** Marks blobs as released at `now`, except those that other rows still refer to. */
export async function releaseBlobs(tx: Tx, ids: readonly string[], now: number): Promise<void> {
  if (ids.length === 0) return;
  // If two transactions release the last two references to a blob at the same time, each would still see the other's
  // row. The lock makes the second wait and then read the result of the first. SQLite runs one transaction at a time.
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
