import { randomBytes } from 'node:crypto';
import type { FastifyBaseLogger } from 'fastify';
import type { Db } from '../db/database.ts';

/** A key that signs links. */
interface LinkKey {
  /** Base64. */
  value: string;
  /** From when it signs, ms since 1970. Before that it is only known. */
  from: number;
  /** Until when what it signed is good, ms since 1970; null while it is not replaced. */
  until: number | null;
}

const name = 'link-key';
const keyBytes = 32;
/** How often each server looks for keys of others. */
const refreshMs = 20_000;
/** How long a new key is known before it signs: by then each server has looked. */
const announceMs = 60_000;

/** The keys that sign links, shared by all servers through the database. The first server makes the first one. */
export class LinkKeys {
  readonly #db: Db;
  #keys: LinkKey[] = [];
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
        .catch((error: unknown) => log.warn({ err: error }, 'cannot look for new keys of links; tried again'));
    }, refreshMs).unref();
    return keys;
  }

  /** Looks for keys that another server or a command made. */
  async refresh(): Promise<void> {
    this.#keys = await read(this.#db);
  }

  /** The key that signs now. */
  get signing(): Buffer {
    const now = Date.now();
    return bytesOf(this.#keys.findLast(({ from }) => from <= now) ?? (this.#keys[0] as LinkKey));
  }

  /** Every key whose links are good now, the latest first. */
  get accepted(): Buffer[] {
    const now = Date.now();
    return this.#keys
      .filter(({ until }) => until === null || until > now)
      .map(bytesOf)
      .reverse();
  }

  close(): void {
    clearInterval(this.#timer);
  }
}

/**
 * Replaces the key that signs links.
 * @param overlapMs how long what the old ones signed stays good after the new one signs. With 0 the new one signs, and the old ones
 * are refused, as soon as each server has looked
 * @returns when the new one signs, ms since 1970
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
  // One that was never replaced stands by itself.
  return value.startsWith('[') ? (JSON.parse(value) as LinkKey[]) : [{ value, from: 0, until: null }];
}

function bytesOf({ value }: LinkKey): Buffer {
  return Buffer.from(value, 'base64');
}
