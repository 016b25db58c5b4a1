import { randomUUID } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { FastifyBaseLogger } from 'fastify';
import { nameOfTile, pack, unpack, type KeptAnswer } from './keptAnswer.ts';

/** The time of a file is renewed at most this often, milliseconds: it says when the tile was last used. */
const renewMs = 3_600_000;
/** The cache is emptied to this share of its budget at once. */
const emptiedTo = 0.9;
/** Maximum number of files: one takes about 150 bytes of memory. */
const mostFiles = 1_000_000;
/** Files that are looked at together. */
const atOnce = 32;

/**
 * Tiles by content: those of one changeset of a segment, or of one baseline. All iModels that see the changeset share
 * them, so a clone finds the tiles of its source. Files of this server only, under a budget; any of them may be lost.
 */
export class TileCache {
  readonly #folder: string;
  readonly #budget: number;
  readonly #log: FastifyBaseLogger;
  /** Size and time of every file, those that were used least recently first; the values are what is on the disk. */
  readonly #files: Map<string, { bytes: number; renewedAt: number }>;
  #bytes = 0;
  readonly #ready: Promise<void>;
  hits = 0;
  misses = 0;

  /** @param budget maximum size of all files, bytes; 0 keeps none */
  constructor(folder: string, budget: number, log: FastifyBaseLogger) {
    this.#folder = folder;
    this.#budget = budget;
    this.#log = log;
    this.#files = new Map();
    this.#ready = budget === 0 ? Promise.resolve() : this.#read();
  }

  /** Size of all files. */
  get bytes(): number {
    return this.#bytes;
  }

  /**
   * @param content folder of the content
   * @param what what identifies the answer within it
   * @param reserve reserves the memory of the answer, bytes, before it is read
   */
  async find(
    content: string,
    what: readonly string[],
    reserve: (bytes: number) => Promise<void>,
  ): Promise<KeptAnswer | undefined> {
    const name = nameOf(content, what);
    await this.#ready;
    const known = this.#files.get(name);
    if (known === undefined) {
      this.misses++;
      return undefined;
    }
    // A map lists its keys in the order in which they were added.
    this.#files.delete(name);
    this.#files.set(name, known);
    const file = path.join(this.#folder, name);
    await reserve(known.bytes);
    try {
      const bytes = await readFile(file);
      const kept = unpack(bytes);
      if (kept === undefined) throw new Error('the file is damaged');
      this.hits++;
      if (known.renewedAt < Date.now() - renewMs) {
        known.renewedAt = Date.now();
        await utimes(file, new Date(), new Date());
      }
      return kept;
    } catch (error) {
      this.misses++;
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') this.#log.warn({ err: error }, 'a kept tile is not used');
      await this.#drop(name);
      return undefined;
    }
  }

  /** Whether an answer is kept. */
  async has(content: string, what: readonly string[]): Promise<boolean> {
    await this.#ready;
    return this.#files.has(nameOf(content, what));
  }

  /** Keeps an answer. A failure, for example on a full disk, is logged and otherwise ignored. */
  async keep(content: string, what: readonly string[], answer: KeptAnswer): Promise<void> {
    const packed = pack(answer);
    if (packed.length > this.#budget / 10) return;
    const name = nameOf(content, what);
    await this.#ready;
    if (this.#files.has(name) || this.#files.size >= mostFiles) return;
    const file = path.join(this.#folder, name);
    const temporary = `${file}.${randomUUID()}`;
    try {
      await mkdir(path.dirname(file), { recursive: true, mode: 0o700 });
      await writeFile(temporary, packed, { mode: 0o600 });
      await rename(temporary, file);
      if (!this.#files.has(name)) this.#bytes += packed.length;
      this.#files.set(name, { bytes: packed.length, renewedAt: Date.now() });
      if (this.#bytes > this.#budget) await this.#makeRoom();
    } catch (error) {
      this.#log.warn({ err: error }, 'a tile could not be kept');
      await rm(temporary, { force: true }).catch(() => undefined);
    }
  }

  /** The contents of which tiles are kept. */
  async contents(): Promise<string[]> {
    return readdir(this.#folder).catch(() => []);
  }

  /** Removes the tiles of a content. */
  async remove(content: string): Promise<void> {
    await this.#ready;
    for (const name of [...this.#files.keys()]) if (path.dirname(name) === content) await this.#drop(name);
    await rm(path.join(this.#folder, content), { recursive: true, force: true });
  }

  async #makeRoom(): Promise<void> {
    for (const name of [...this.#files.keys()]) {
      if (this.#bytes <= this.#budget * emptiedTo) return;
      await this.#drop(name);
    }
  }

  async #drop(name: string): Promise<void> {
    const known = this.#files.get(name);
    if (known === undefined) return;
    this.#files.delete(name);
    this.#bytes -= known.bytes;
    await rm(path.join(this.#folder, name), { force: true }).catch(() => undefined);
  }

  /** Reads what an earlier process kept, oldest first. */
  async #read(): Promise<void> {
    try {
      const found: { name: string; bytes: number; usedAt: number }[] = [];
      for (const content of await this.contents()) {
        const names = await readdir(path.join(this.#folder, content));
        for (let n = 0; n < names.length; n += atOnce)
          await Promise.all(
            names.slice(n, n + atOnce).map(async (each) => {
              const name = path.join(content, each);
              // A temporary file of a process that ended.
              if (each.includes('.')) return rm(path.join(this.#folder, name), { force: true });
              const { size, mtimeMs } = await stat(path.join(this.#folder, name));
              found.push({ name, bytes: size, usedAt: mtimeMs });
            }),
          );
      }
      found.sort((one, other) => one.usedAt - other.usedAt);
      for (const { name, bytes, usedAt } of found) {
        this.#files.set(name, { bytes, renewedAt: usedAt });
        this.#bytes += bytes;
      }
      if (this.#bytes > this.#budget) await this.#makeRoom();
    } catch (error) {
      this.#log.warn({ err: error }, 'the kept tiles cannot be read');
    }
  }
}

function nameOf(content: string, what: readonly string[]): string {
  return path.join(content, nameOfTile(what));
}
