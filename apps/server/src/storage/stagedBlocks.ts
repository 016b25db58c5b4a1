import { BoundedCache } from '../boundedCache.ts';
import type { CallOptions } from './blobStore.ts';

/** A staged block in the listing of its store. */
export interface StagedBlock {
  /** Name of the block in the store, unique within its upload. */
  name: string;
  /** Bytes. */
  size: number;
  /** When it was staged, ms since 1970. */
  modifiedAt: number;
}

/** How to access the staged blocks of a store. */
export interface StagingPlace {
  list(upload: string, options: CallOptions): Promise<StagedBlock[]>;
  remove(upload: string, name: string, options: CallOptions): Promise<void>;
}

/**
 * Maximum total size of the blocks of an upload, as a multiple of its declared size. Clients name their blocks
 * differently in each attempt, so this allows the blocks of one attempt and of an earlier one that was interrupted.
 * Beyond `most`, the oldest blocks are dropped until `kept` is left. The store is therefore listed once for each half
 * of the declared size that arrives, not once for each block.
 */
const most = 2;
const kept = 1.5;
/** Rule of Azure: maximum number of uncommitted blocks of one blob. */
const mostBlocks = 100_000;
const keptBlocks = 75_000;
/** Number of uploads whose blocks are counted in memory. Those of other uploads are listed again. */
const countedUploads = 1000;

/**
 * Enforces the limit on the staged blocks of each upload. A block that is staged twice counts once. Several servers may
 * stage blocks of one upload: each counts its own and those that it found first, and lists them again before it drops
 * any.
 */
export class StagedBlocks {
  readonly #place: StagingPlace;
  readonly #counted = new BoundedCache<string, Count>(countedUploads);
  /** Blocks that are being staged, by upload. They are not dropped. */
  readonly #coming = new Map<string, string[]>();
  /** By upload, resolved when the last received block is counted. */
  readonly #counting = new Map<string, Promise<void>>();

  constructor(place: StagingPlace) {
    this.#place = place;
  }

  /**
   * Stages a block, counts it, and drops the oldest blocks of its upload beyond the limit.
   * @param declared declared size of the whole upload, bytes
   * @param write stages the block and returns its size
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

  /** Counts the blocks of one upload one at a time. */
  async #inTurn(upload: string, work: () => Promise<void>): Promise<void> {
    const counted = (this.#counting.get(upload) ?? Promise.resolve()).catch(() => undefined).then(work);
    this.#counting.set(upload, counted);
    try {
      await counted;
    } finally {
      if (this.#counting.get(upload) === counted) this.#counting.delete(upload);
    }
  }

  /** Discards the count of an upload whose blocks were dropped. */
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
    // Another server may have staged some of them again since, so the order must come from the store.
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

  /**
   * The blocks of an upload, oldest first. Some stores report times in whole seconds. Within a second, blocks are
   * ordered as they were counted here, uncounted ones last.
   */
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
  /** Bytes by name, in the order of staging. */
  sizes: Map<string, number>;
  bytes: number;
}

function countOf(blocks: readonly StagedBlock[]): Count {
  return {
    sizes: new Map(blocks.map(({ name, size }) => [name, size])),
    bytes: blocks.reduce((sum, { size }) => sum + size, 0),
  };
}
