import { createSecretKey, randomBytes, type KeyObject } from 'node:crypto';
import type { FastifyBaseLogger } from 'fastify';
import type { Db } from '../db/database.ts';

/** A key that signs links. */
interface LinkKey {
  /** Base64. */
  value: string;
  /** When it starts signing links, ms since 1970. Before that, servers only accept it. */
  from: number;
  /** Until when its links are valid, ms since 1970; null if it was not replaced. */
  until: number | null;
}

const name = 'link-key';
const keyBytes = 32;
/** How often each server reads the keys from the database. */
const refreshMs = 20_000;
/** Delay before a new key signs links. By then every server has read it. */
const announceMs = 60_000;

/** The keys that sign links, shared by all servers through the database. The first server creates the first key. */
export class LinkKeys {
  readonly #db: Db;
  #keys: (LinkKey & { imported: KeyObject })[] = [];
  #timer: NodeJS.Timeout | undefined;

  private constructor(db: Db) {
    this.#db = db;
  }

  static async open(db: Db, log: FastifyBaseLogger): Promise<LinkKeys> {
    await db
      .insertInto('secret')
      .values({ name, value: randomBytes(keyBytes).toString('base64') })
      .onConflict((conflict) => conflict.doNothing())
      .execute();
    const keys = new LinkKeys(db);
    await keys.refresh();
    keys.#timer = setInterval(() => {
      keys
        .refresh()
        .catch((error: unknown) => log.warn({ err: error }, 'cannot read the link keys from the database; will retry'));
    }, refreshMs).unref();
    return keys;
  }

  /** Reads the keys from the database, because another server or a command may have added one. */
  async refresh(): Promise<void> {
    // Importing a key takes five times as long as signing with it.
    this.#keys = (await read(this.#db)).map((key) => ({
      ...key,
      imported: createSecretKey(Buffer.from(key.value, 'base64')),
    }));
  }

  /** The key that currently signs links. */
  get signing(): KeyObject {
    const now = Date.now();
    const key = this.#keys.findLast(({ from }) => from <= now) ?? this.#keys[0];
    if (key === undefined) throw new Error('the keys of links are not read yet');
    return key.imported;
  }

  /** Every key whose links are currently valid, the latest first. */
  get accepted(): KeyObject[] {
    const now = Date.now();
    return this.#keys
      .filter(({ until }) => until === null || until > now)
      .map(({ imported }) => imported)
      .reverse();
  }

  close(): void {
    clearInterval(this.#timer);
  }
}

/**
 * Replaces the key that signs links.
 * @param overlapMs how long links of the old keys stay valid after the new key starts signing. With 0, each server
 * switches to the new key and refuses the old ones as soon as it has read the keys
 * @returns when the new key starts signing, ms since 1970
 */
export async function rotateLinkKeys(db: Db, overlapMs: number): Promise<number> {
  return db.transaction().execute(async (tx) => {
    const now = Date.now();
    const from = overlapMs === 0 ? now : now + announceMs;
    const old = (await read(tx))
      .filter(({ until }) => until === null || until > now)
      .map((key) => ({ ...key, until: Math.min(key.until ?? Infinity, from + overlapMs) }));
    const keys: LinkKey[] = [...old, { value: randomBytes(keyBytes).toString('base64'), from, until: null }];
    await tx
      .updateTable('secret')
      .set({ value: JSON.stringify(keys) })
      .where('name', '=', name)
      .execute();
    return from;
  });
}

async function read(db: Db): Promise<LinkKey[]> {
  const { value } = await db.selectFrom('secret').select('value').where('name', '=', name).executeTakeFirstOrThrow();
  // A key that was never replaced is stored without a list.
  return value.startsWith('[') ? (JSON.parse(value) as LinkKey[]) : [{ value, from: 0, until: null }];
}
