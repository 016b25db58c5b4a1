import { LRUCache } from 'lru-cache';
import type { CallOptions } from './blobStore.ts';

/** A staged block as its store lists it. */
export interface StagedBlock {
  /** Of the block within its upload, as the store has it. */
  name: string;
  /** Bytes. */
  size: number;
  /** When it was staged, ms since 1970. */
  modifiedAt: number;
}

/** Where a store keeps staged blocks. */
export interface StagingPlace {
  list(upload: string, options: CallOptions): Promise<StagedBlock[]>;
  remove(upload: string, name: string, options: CallOptions): Promise<void>;
}

/**
 * What the blocks of an upload may take together, as a multiple of its declared size: the blocks of one attempt and of an earlier
 * one that broke off, because clients name their blocks anew for each attempt. Beyond `most` the oldest blocks are dropped until
 * `kept` is left, so that the store is listed once for each half of the declared size that comes in and not once for each block.
 */
const most = 2;
const kept = 1.5;
/** Rule of Azure: the uncommitted blocks of one blob. */
const mostBlocks = 100_000;
const keptBlocks = 75_000;
/** Uploads whose blocks are counted in memory; those of others are listed again. */
const countedUploads = 1000;

/**
 * Keeps what is staged for each upload within its bound. A block that is staged again counts once. Several servers may stage
 * blocks of one upload: each counts its own and what was there when it first looked, and looks again before it drops any.
 */
export class StagedBlocks {
  readonly #place: StagingPlace;
  readonly #counted = new LRUCache<string, Count>({ max: countedUploads });
  /** Blocks that are being staged now, by upload: none of them is dropped. */
  readonly #coming = new Map<string, string[]>();
  /** Ends when the last block that came in is counted. */
  readonly #counting = new Map<string, Promise<void>>();

  constructor(place: StagingPlace) {
    this.#place = place;
  }

  /**
   * Stages a block, counts it, and drops the oldest blocks of its upload if they are too many.
   * @param declared bytes that the whole upload shall have
   * @param write stages it and tells how many bytes it has
   */
  async stage(
    upload: string,
    name: string,
    declared: number,
    options: CallOptions,
    write: () => Promise<number>,
  ): Promise<void> {
    const coming = this.#coming.get(upload) ?? [];
    this.#coming.set(upload, coming);
    coming.push(name);
    try {
      const size = await write();
      await this.#inTurn(upload, () => this.#add(upload, name, size, declared, options));
    } finally {
      coming.splice(coming.indexOf(name), 1);
      if (coming.length === 0) this.#coming.delete(upload);
    }
  }

  /** Blocks of one upload are counted one after the other. */
  async #inTurn(upload: string, work: () => Promise<void>): Promise<void> {
    const counted = (this.#counting.get(upload) ?? Promise.resolve()).catch(() => undefined).then(work);
    this.#counting.set(upload, counted);
    try {
      await counted;
    } finally {
      if (this.#counting.get(upload) === counted) this.#counting.delete(upload);
    }
  }

  /** Forgets what was counted for an upload whose blocks are gone. */
  forget(upload: string): void {
    this.#counted.delete(upload);
  }

  async #add(upload: string, name: string, size: number, declared: number, options: CallOptions): Promise<void> {
    const count = this.#counted.get(upload) ?? countOf(await this.#inOrder(upload, new Map(), options));
    count.bytes += size - (count.sizes.get(name) ?? 0);
    count.sizes.delete(name);
    count.sizes.set(name, size);
    this.#counted.set(upload, count);
    if (count.bytes <= most * declared && count.sizes.size <= mostBlocks) return;
    // Another server may have staged some of them again since: the store tells which are the oldest.
    const blocks = await this.#inOrder(upload, count.sizes, options);
    const left = countOf(blocks);
    for (const block of blocks) {
      if (left.bytes <= kept * declared && left.sizes.size <= keptBlocks) break;
      if (this.#coming.get(upload)?.includes(block.name) === true) continue;
      await this.#place.remove(upload, block.name, options);
      left.sizes.delete(block.name);
      left.bytes -= block.size;
    }
    this.#counted.set(upload, left);
  }

  /** The blocks of an upload, the oldest first. Stores tell times to the second at worst: what was counted later here, or is not yet, is newer. */
  async #inOrder(upload: string, sizes: ReadonlyMap<string, number>, options: CallOptions): Promise<StagedBlock[]> {
    const positions = new Map([...sizes.keys()].map((name, position) => [name, position]));
    const positionOf = ({ name }: StagedBlock): number => positions.get(name) ?? Number.MAX_SAFE_INTEGER;
    return (await this.#place.list(upload, options)).sort(
      (a, b) => a.modifiedAt - b.modifiedAt || positionOf(a) - positionOf(b),
    );
  }
}

/** The blocks of one upload. */
interface Count {
  /** Bytes by name, the block that was staged last at the end. */
  sizes: Map<string, number>;
  bytes: number;
}

function countOf(blocks: readonly StagedBlock[]): Count {
  return {
    sizes: new Map(blocks.map(({ name, size }) => [name, size])),
    bytes: blocks.reduce((sum, { size }) => sum + size, 0),
  };
}
