import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FileStore } from '../apps/server/src/storage/fileStore.ts';
import { blobStoreSuite } from './suites/blobStore.ts';
import { workFolder } from './support/clients.ts';

blobStoreSuite('of files', async () => {
  const work = workFolder();
  return { store: await FileStore.open('files', work.path), remove: async () => work.remove() };
});

test('the blob store of files never leaves its folder', async () => {
  const work = workFolder();
  try {
    const store = await FileStore.open('files', work.path);
    for (const key of ['../../etc/passwd', 'a/b', '..', '', 'x'.repeat(20)]) await assert.rejects(store.read(key), /is not a key/);
  } finally {
    work.remove();
  }
});
