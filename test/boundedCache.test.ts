/** The cache of bounded size that all parts of the server use. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BoundedCache } from '../apps/server/src/boundedCache.ts';

test('a bounded cache keeps what was used last, up to its number of entries', () => {
  const cache = new BoundedCache<string, number>(2);
  cache.set('a', 1);
  cache.set('b', 2);
  assert.equal(cache.get('a'), 1);
  cache.set('c', 3);
  assert.deepEqual([cache.size, cache.get('a'), cache.get('b'), cache.get('c')], [2, 1, undefined, 3]);
});

test('a bounded cache allocates no space for entries that have not come', () => {
  // No array has this many elements.
  const cache = new BoundedCache<string, true>(Number.MAX_SAFE_INTEGER, { ttl: 60_000 });
  cache.set('a', true);
  assert.equal(cache.get('a'), true);
});
