import type { FastifyBaseLogger } from 'fastify';
import pMap from 'p-map';
import { BoundedCache } from '../boundedCache.ts';
import type { Db } from '../db/database.ts';
import { ApiError } from '../errors.ts';
import { NoSuchObjectError, type TileObjects } from '../storage/blobStore.ts';
import { AnswersFullError } from './answerMemory.ts';
import { nameOfTile, pack, unpack, type KeptAnswer } from './keptAnswer.ts';
import { removeOrphanTiles } from './orphanTiles.ts';
import { Pauses } from './pauses.ts';

/** Longest wait of a view for the store, and for a write, milliseconds. */
const readMs = 2000;
const writeMs = 30_000;
/** Largest tile in the store, bytes. */
const maxTileBytes = 32 * 2 ** 20;
/** Limits of what waits to be written; what exceeds them is not shared. */
const mostWaiting = 500;
const mostWaitingBytes = 64 * 2 ** 20;
const writesAtOnce = 4;
/** A tile that was not in the store is not looked for again for this long: it is generated, then retrieved. */
const missedMs = 60_000;
/** Tiles that are remembered as missing, and contents whose last use is remembered. */
const remembered = 10_000;
/** The use of a content is written at most this often. */
const markMs = 20 * 3_600_000;
/** Object of a content whose time says when it was last used, if that was later than its last tile. */
const mark = { name: 'used', bytes: Buffer.from('used') };
/** Tiles that another version of iTwin.js made are removed when no server has used them for this long. */
const otherVersionMs = 7 * 24 * 3_600_000;
/** Share of the limit that a server may write before the tiles in the store are counted again. */
const uncounted = 1 / 20;
/** The store is emptied to this share of the limit at once. */
const emptiedTo = 0.9;
const removedAtOnce = 16;

interface Write {
  content: string;
  name: string;
  bytes: Buffer;
}

/** What is known of one content in the store. */
interface ContentUse {
  bytes: number;
  /** Time of the newest object, ms since 1970. */
  usedAt: number;
}

export interface StoredTilesOptions {
  /** Id of the store. */
  store: string;
  objects: TileObjects;
  /** Maximum size of all tiles in the store, bytes; 0 for none. */
  limit: number;
  /** Version of iTwin.js that makes tiles; undefined if it is not known. */
  iTwinJs: () => string | undefined;
  log: FastifyBaseLogger;
}

/**
 * The tiles in one store, by content, for all servers: the second level behind the folder of each server. A view waits for a
 * read at most 2 s and never for a write. A store that fails is left alone for a while, and tiles are made instead.
 */
export class StoredTiles {
  readonly #store: string;
  readonly #objects: TileObjects;
  readonly #limit: number;
  readonly #iTwinJs: () => string | undefined;
  readonly #log: FastifyBaseLogger;
  readonly #missed = new BoundedCache<string, true>(remembered, { ttl: missedMs });
  readonly #marked = new BoundedCache<string, number>(remembered);
  readonly #reads: Pauses;
  readonly #writes: Pauses;
  readonly #ending = new AbortController();
  #waiting: Write[] = [];
  #waitingBytes = 0;
  readonly #running = new Set<Promise<void>>();
  /** Bytes written since the tiles in the store were counted. */
  #written = 0;
  /** Tiles that came from the store, those written to it, and those that were not because too many waited. */
  readonly counts = { found: 0, stored: 0, dropped: 0 };

  constructor({ store, objects, limit, iTwinJs, log }: StoredTilesOptions) {
    this.#store = store;
    this.#objects = objects;
    this.#limit = limit;
    this.#iTwinJs = iTwinJs;
    this.#log = log;
    this.#reads = new Pauses((error) =>
      log.warn({ err: error, store }, 'tiles cannot be read from the store and are made instead'),
    );
    this.#writes = new Pauses((error) =>
      log.warn({ err: error, store }, 'tiles cannot be written to the store, so other servers have to make them too'),
    );
  }

  /** Number of tiles that are being written or wait for it. */
  get pending(): number {
    return this.#waiting.length + this.#running.size;
  }

  /**
   * @param signal aborted when nobody waits for the tile any more
   * @param reserve reserves the memory of a part of the tile, bytes. It does not wait: a store that has to wait seems slow.
   * @throws what `reserve` throws
   */
  async find(
    content: string,
    what: readonly string[],
    signal: AbortSignal,
    reserve: (bytes: number) => void,
  ): Promise<KeptAnswer | undefined> {
    const name = nameOfTile(what);
    const key = `${content}/${name}`;
    if (this.#limit === 0 || this.#missed.has(key) || !this.#reads.ready()) return undefined;
    try {
      const within = AbortSignal.any([signal, this.#ending.signal, AbortSignal.timeout(readMs)]);
      const kept = unpack(await this.#read(content, name, within, reserve));
      this.#reads.succeeded();
      if (kept !== undefined) {
        this.counts.found++;
        this.used(content);
        return kept;
      }
      this.#log.warn({ store: this.#store, content, name }, 'a tile in the store is damaged and is made again');
      await this.#objects.delete(content, name, { signal: within });
    } catch (error) {
      if (error instanceof AnswersFullError || error instanceof ApiError) throw error;
      if (signal.aborted || this.#ending.signal.aborted) return undefined;
      if (error instanceof NoSuchObjectError) this.#reads.succeeded();
      else this.#reads.failed(error);
    }
    this.#missed.set(key, true);
    return undefined;
  }

  /** @returns no bytes, and so a damaged tile, if it is longer than any that is written */
  async #read(content: string, name: string, signal: AbortSignal, reserve: (bytes: number) => void): Promise<Buffer> {
    const parts: Buffer[] = [];
    let bytes = 0;
    for await (const part of await this.#objects.read(content, name, { signal })) {
      reserve((part as Buffer).length);
      parts.push(part as Buffer);
      bytes += (part as Buffer).length;
      if (bytes > maxTileBytes) return Buffer.alloc(0);
    }
    return Buffer.concat(parts, bytes);
  }

  /** Writes an answer to the store in the background, unless too much waits already. */
  keep(content: string, what: readonly string[], answer: KeptAnswer): void {
    if (this.#limit === 0) return;
    const bytes = pack(answer);
    if (bytes.length > maxTileBytes) return;
    const name = nameOfTile(what);
    if (this.#written + bytes.length > this.#limit * uncounted || !this.#enqueue({ content, name, bytes }))
      this.counts.dropped++;
    else this.#marked.set(content, Date.now());
  }

  /** Remembers that a content is in use, so that its tiles are among the last to be removed. */
  used(content: string): void {
    if (this.#limit === 0 || (this.#marked.get(content) ?? -Infinity) > Date.now() - markMs) return;
    if (this.#enqueue({ content, ...mark })) this.#marked.set(content, Date.now());
  }

  #enqueue(write: Write): boolean {
    const { length } = write.bytes;
    if (this.#ending.signal.aborted || this.#waiting.length >= mostWaiting) return false;
    if (this.#waitingBytes + length > mostWaitingBytes || !this.#writes.ready()) return false;
    this.#written += length;
    this.#waitingBytes += length;
    this.#waiting.push(write);
    this.#next();
    return true;
  }

  #next(): void {
    while (this.#running.size < writesAtOnce) {
      const write = this.#waiting.shift();
      if (write === undefined) return;
      const running = this.#write(write).finally(() => {
        this.#running.delete(running);
        this.#waitingBytes -= write.bytes.length;
        this.#next();
      });
      this.#running.add(running);
    }
  }

  async #write({ content, name, bytes }: Write): Promise<void> {
    try {
      const signal = AbortSignal.any([this.#ending.signal, AbortSignal.timeout(writeMs)]);
      await this.#objects.put(content, name, bytes, { signal });
      this.#writes.succeeded();
      this.#missed.delete(`${content}/${name}`);
      if (name !== mark.name) this.counts.stored++;
    } catch (error) {
      if (this.#ending.signal.aborted) return;
      this.#writes.failed(error);
      this.#drop();
    }
  }

  #drop(): void {
    this.counts.dropped += this.#waiting.length;
    for (const { bytes } of this.#waiting) this.#waitingBytes -= bytes.length;
    this.#waiting = [];
  }

  /**
   * Removes the tiles of contents that do not exist any more, those of another version of iTwin.js that nobody uses, and,
   * above the limit, the contents that were used least recently. Any server may do it, and several at once. A failure is
   * logged; the next run tries again.
   * @param run.thorough whether to count what is in the store, which takes a request for 1,000 tiles
   * @param run.removed whether contents may have been removed since the last run
   */
  async tidy(db: Db, run: { thorough: boolean; removed: boolean }, signal: AbortSignal): Promise<void> {
    try {
      const tiles = {
        contents: () => this.contents(signal),
        remove: (content: string) => this.remove(content, signal),
      };
      const inUse = this.#limit > 0;
      if (run.thorough || (run.removed && inUse)) await removeOrphanTiles(db, tiles, undefined, signal);
      if (run.thorough || (inUse && this.#written * 2 >= this.#limit * uncounted)) await this.#keepLimit(signal);
    } catch (error) {
      signal.throwIfAborted();
      this.#log.warn({ err: error, store: this.#store }, 'old tiles could not be removed from the store');
    }
  }

  async #keepLimit(signal: AbortSignal): Promise<void> {
    const before = this.#written;
    const uses = new Map<string, ContentUse>();
    let bytes = 0;
    for await (const { content, size, modifiedAt } of this.#objects.list(undefined, { signal })) {
      const use = uses.get(content) ?? { bytes: 0, usedAt: 0 };
      uses.set(content, { bytes: use.bytes + size, usedAt: Math.max(use.usedAt, modifiedAt) });
      bytes += size;
    }
    const excess = bytes > this.#limit ? bytes - this.#limit * emptiedTo : 0;
    let freed = 0;
    const iTwinJs = this.#iTwinJs();
    for (const [content, use] of [...uses].sort(([, one], [, other]) => one.usedAt - other.usedAt)) {
      const isOther = iTwinJs !== undefined && !content.endsWith(`-${iTwinJs}`);
      const isOld = isOther && use.usedAt < Date.now() - otherVersionMs;
      if (freed >= excess && !isOld) continue;
      await this.remove(content, signal);
      freed += use.bytes;
    }
    this.#written -= before;
  }

  /** The contents that have tiles. */
  async contents(signal?: AbortSignal): Promise<string[]> {
    const found: string[] = [];
    for await (const content of this.#objects.contents({ signal })) found.push(content);
    return found;
  }

  /** Removes the tiles of a content. */
  async remove(content: string, signal?: AbortSignal): Promise<void> {
    this.#marked.delete(content);
    await pMap(this.#objects.list(content, { signal }), ({ name }) => this.#objects.delete(content, name, { signal }), {
      concurrency: removedAtOnce,
    });
  }

  /** Drops what waits to be written and ends what is being written. */
  async stop(): Promise<void> {
    this.#ending.abort(new Error('the server shuts down'));
    this.#drop();
    await Promise.all(this.#running);
  }
}
