import { LRUCache } from 'lru-cache';

/**
 * A cache that drops the least recently used entries beyond a number, and allocates space when entries come. With its option `max`,
 * the library allocates the space of all entries at once: 7 MiB for the caches of a server that nobody uses yet.
 */
export class BoundedCache<Key extends string, Value extends object | string | number | true> extends LRUCache<
  Key,
  Value
> {
  /**
   * @param most entries to keep
   * @param options.ttl how long an entry is valid, milliseconds; by default for as long as it is kept
   * @param options.noUpdateTTL whether an entry that is replaced keeps the end of its time
   */
  constructor(most: number, options: { ttl?: number; noUpdateTTL?: boolean } = {}) {
    super({ ...options, maxSize: most, sizeCalculation: () => 1 });
  }
}
