import { createHash } from 'node:crypto';
import { compiledQuery } from '../db/compiledQuery.ts';
import { databaseNow } from '../db/clock.ts';
import type { Db } from '../db/database.ts';
import type { SignInStateTable } from '../db/schema.ts';

/** Rows deleted by one statement. */
const deletedAtOnce = 500;

/** Kinds whose id is a credential. Only a hash of it is stored, so that a copy of the database lets nobody sign in. */
const credentials: ReadonlySet<string> = new Set(['AuthorizationCode', 'RefreshToken', 'Session', 'PasswordLink']);

const rowById = compiledQuery((db, { kind, id, now }: { kind: string; id: string; now: number }) =>
  db
    .selectFrom('sign_in_state')
    .selectAll()
    .where('kind', '=', kind)
    .where('id', '=', id)
    .where((eb) => eb.or([eb('expires_at', 'is', null), eb('expires_at', '>', now)])),
);

/** What a row says, and what it is found by. */
export interface StateEntry {
  payload: Record<string, unknown>;
  accountId?: string | undefined;
  grantId?: string | undefined;
  uid?: string | undefined;
  userCode?: string | undefined;
  /** Undefined for what does not expire. */
  lifeSeconds?: number | undefined;
}

/**
 * The state of the embedded OpenID Provider in the database, so that servers share it and sessions survive a restart. What has
 * expired is not found; the collector deletes it.
 */
export class SignInState {
  readonly #db: Db;

  constructor(db: Db) {
    this.#db = db;
  }

  async find(kind: string, id: string): Promise<Record<string, unknown> | undefined> {
    const row = await rowById.first(this.#db, { kind, id: storedId(kind, id), now: Date.now() });
    return row === undefined ? undefined : { ...payloadOf(row), ...(credentials.has(kind) && { jti: id }) };
  }

  /** Finds a session by its second key, or a device by the code of its user. */
  async findBy(kind: string, key: 'uid' | 'user_code', value: string): Promise<Record<string, unknown> | undefined> {
    const row = await this.#db
      .selectFrom('sign_in_state')
      .selectAll()
      .where(key, '=', value)
      .where('kind', '=', kind)
      .where('expires_at', '>', Date.now())
      .executeTakeFirst();
    return row === undefined ? undefined : payloadOf(row);
  }

  async list(kind: string): Promise<Record<string, unknown>[]> {
    const rows = await this.#db
      .selectFrom('sign_in_state')
      .selectAll()
      .where('kind', '=', kind)
      .where((eb) => eb.or([eb('expires_at', 'is', null), eb('expires_at', '>', Date.now())]))
      .orderBy('id')
      .limit(10_000)
      .execute();
    return rows.map(payloadOf);
  }

  async put(kind: string, id: string, entry: StateEntry): Promise<void> {
    const { lifeSeconds, payload } = entry;
    const stored = credentials.has(kind) ? { ...payload, jti: undefined } : payload;
    const columns = {
      payload: JSON.stringify(stored),
      account_id: entry.accountId ?? null,
      grant_id: entry.grantId ?? null,
      uid: entry.uid ?? null,
      user_code: entry.userCode ?? null,
      expires_at: lifeSeconds === undefined ? null : Date.now() + Math.ceil(lifeSeconds * 1000),
    };
    await this.#db
      .insertInto('sign_in_state')
      .values({ kind, id: storedId(kind, id), consumed_at: null, ...columns })
      .onConflict((conflict) => conflict.columns(['kind', 'id']).doUpdateSet(columns))
      .execute();
  }

  /** Marks a row as used. @returns false if it was used before, also by another server at the same time */
  async consume(kind: string, id: string): Promise<boolean> {
    const used = await this.#db
      .updateTable('sign_in_state')
      .set({ consumed_at: Date.now() })
      .where('kind', '=', kind)
      .where('id', '=', storedId(kind, id))
      .where('consumed_at', 'is', null)
      .executeTakeFirst();
    return Number(used.numUpdatedRows) === 1;
  }

  /** @returns whether there was such a row */
  async delete(kind: string, id: string): Promise<boolean> {
    const deleted = await this.#db
      .deleteFrom('sign_in_state')
      .where('kind', '=', kind)
      .where('id', '=', storedId(kind, id))
      .executeTakeFirst();
    return Number(deleted.numDeletedRows) === 1;
  }

  /** Deletes everything that belongs to a grant, or everything of an account or a kind. */
  async deleteAll(by: 'grant_id' | 'account_id' | 'kind', value: string): Promise<void> {
    for (;;) {
      const some = this.#db.selectFrom('sign_in_state').select(['kind', 'id']).where(by, '=', value);
      const rows = await some.limit(deletedAtOnce).execute();
      for (const kind of new Set(rows.map((row) => row.kind)))
        await this.#db
          .deleteFrom('sign_in_state')
          .where('kind', '=', kind)
          .where(
            'id',
            'in',
            rows.filter((row) => row.kind === kind).map(({ id }) => id),
          )
          .execute();
      if (rows.length < deletedAtOnce) return;
    }
  }
}

function storedId(kind: string, id: string): string {
  return credentials.has(kind) ? createHash('sha256').update(id).digest('base64url') : id;
}

function payloadOf({ payload, consumed_at }: SignInStateTable): Record<string, unknown> {
  return {
    ...(JSON.parse(payload) as Record<string, unknown>),
    ...(consumed_at !== null && { consumed: Math.floor(Number(consumed_at) / 1000) }),
  };
}

/** Deletes expired state. @returns how many rows, at most `limit` */
export async function dropExpiredState(db: Db, limit: number): Promise<number> {
  const rows = await db
    .selectFrom('sign_in_state')
    .select(['kind', 'id'])
    .where('expires_at', '<=', databaseNow(db))
    .limit(limit)
    .execute();
  for (const kind of new Set(rows.map((row) => row.kind)))
    await db
      .deleteFrom('sign_in_state')
      .where('kind', '=', kind)
      .where(
        'id',
        'in',
        rows.filter((row) => row.kind === kind).map(({ id }) => id),
      )
      .where('expires_at', '<=', databaseNow(db))
      .execute();
  return rows.length;
}
