import assert from 'node:assert/strict';
import { createHash, randomUUID } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Readable } from 'node:stream';
import { after, before, test } from 'node:test';
import { outageOf } from '../apps/server/src/outages.ts';
import { FileStore } from '../apps/server/src/storage/fileStore.ts';
import { official } from './support/clients.ts';
import { beginPush } from './support/push.ts';
import { bootServer, endServer } from './support/server.ts';
import { until } from './support/until.ts';
import { WatchedSyncs } from './support/watchedSyncs.ts';

/**
 * A power failure cannot be simulated here. A file survives one if its bytes and the folder entries of its path were synced
 * before the store acknowledged it, so the tests observe the syncs.
 */
let synced: WatchedSyncs;
const root = mkdtempSync(path.join(tmpdir(), 'offshoot-sync-'));

before(async () => {
  synced = await WatchedSyncs.start(root);
});
after(() => {
  synced.remove();
  rmSync(root, { recursive: true, force: true });
});

/** The file of the only object of a store, and the folders above it that the store created. */
function chainOf(folder: string): string[] {
  const [file] = readdirSync(path.join(folder, 'objects'), { recursive: true, withFileTypes: true }).filter((entry) =>
    entry.isFile(),
  );
  assert.ok(file);
  const chain = [path.join(file.parentPath, file.name)];
  for (let at = file.parentPath; at !== path.dirname(folder); at = path.dirname(at)) chain.push(at);
  return chain;
}

for (const how of ['in one piece', 'in blocks'] as const)
  test(`a file that is stored ${how} is synced with every new folder above it before the store acknowledges it`, async () => {
    synced.clear();
    const folder = path.join(root, how.replaceAll(' ', '-'));
    const store = await FileStore.open('files', folder);
    const upload = randomUUID();
    const bytes = Buffer.from('every byte of this counts');
    if (how === 'in one piece') await store.put(randomUUID(), Readable.from([bytes]), bytes.length);
    else {
      await store.stageBlock(upload, 'YQ==', Readable.from([bytes]), bytes.length);
      await store.commitBlocks(upload, randomUUID(), ['YQ=='], bytes.length);
    }
    for (const name of chainOf(folder))
      assert.ok(synced.has(statSync(name).ino), `${path.relative(root, name)} was not synced`);
  });

test('a block of an upload is synced with its folder before the store acknowledges it', async () => {
  const folder = path.join(root, 'blocks');
  const store = await FileStore.open('files', folder);
  const upload = randomUUID();
  await store.stageBlock(upload, 'YQ==', Readable.from([Buffer.from('first')]), 5);
  // The folder of the upload exists, so that only the second block has a reason to sync it.
  synced.clear();
  await store.stageBlock(upload, 'Yg==', Readable.from([Buffer.from('second')]), 6);
  const uploads = path.join(folder, 'unfinished', upload);
  assert.ok(synced.has(statSync(uploads).ino), 'its folder is synced');
  for (const name of readdirSync(uploads).filter((each) => statSync(path.join(uploads, each)).size === 6))
    assert.ok(synced.has(statSync(path.join(uploads, name)).ino), 'its bytes are synced');
});

test('a file that is copied from another folder is synced at once, and its folder when the copy is settled', async () => {
  const [source, target] = [path.join(root, 'source'), path.join(root, 'target')];
  const [from, to] = [await FileStore.open('from', source), await FileStore.open('to', target)];
  const [key, copy] = [randomUUID(), randomUUID()];
  const bytes = Buffer.from('every byte of this counts');
  await from.put(key, Readable.from([bytes]), bytes.length);
  // The folder of the copy exists, so that only `settle` has a reason to sync it.
  await to.put(`${copy.slice(0, 2)}${randomUUID().slice(2)}`, Readable.from([bytes]), bytes.length);
  synced.clear();
  await to.copyFrom(from, key, copy, bytes.length, { settledLater: true });
  const folder = path.join(target, 'objects', copy.slice(0, 2));
  assert.ok(synced.has(statSync(path.join(folder, copy)).ino), 'the file is synced');
  assert.ok(!synced.has(statSync(folder).ino), 'its folder is not synced yet');
  await to.settle([copy]);
  assert.ok(synced.has(statSync(folder).ino), 'its folder is synced');
});

test('a small file is stored and synced while the disk does not answer for another one', async () => {
  const folder = path.join(root, 'two');
  const store = await FileStore.open('files', folder);
  const bytes = Buffer.from('every byte of this counts');
  const [first, second] = [`00${randomUUID().slice(2)}`, `00${randomUUID().slice(2)}`];
  await store.put(`00${randomUUID().slice(2)}`, Readable.from([bytes]), bytes.length);
  synced.clear();
  synced.holdBack();
  try {
    const slow = store.put(first, Readable.from([bytes]), bytes.length);
    const release = await until('the sync of the first file', () => synced.next());
    let isStored = false;
    const stored = store.put(second, Readable.from([bytes]), bytes.length).then((object) => {
      isStored = true;
      return object;
    });
    // The syncs of the second file: all but the one that waits already.
    await until('the second file', () => (isStored ? true : void synced.nextOfHandles()?.()));
    assert.deepEqual(await stored, { size: bytes.length, sha256: createHash('sha256').update(bytes).digest('hex') });
    for (const name of [path.join(folder, 'objects', '00', second), path.join(folder, 'objects', '00')])
      assert.ok(synced.has(statSync(name).ino), `${path.relative(root, name)} was not synced`);
    assert.ok(!existsSync(path.join(folder, 'objects', '00', first)), 'the first file still waits');
    release();
    synced.letGo();
    await slow;
    assert.ok(synced.has(statSync(path.join(folder, 'objects', '00', first)).ino));
  } finally {
    synced.letGo();
  }
});

test('a small file that cannot be written fails with the reason, leaves nothing behind, and does not affect the next one', async () => {
  const folder = path.join(root, 'refused');
  const store = await FileStore.open('files', folder);
  const [key, bytes] = [randomUUID(), Buffer.from('every byte of this counts')];
  const put = () => store.put(key, Readable.from([bytes]), bytes.length);
  // A file where the folder of the key should be.
  writeFileSync(path.join(folder, 'objects', key.slice(0, 2)), '');
  await assert.rejects(put(), { code: 'ENOTDIR' });
  assert.deepEqual(readdirSync(path.join(folder, 'unfinished')), []);
  rmSync(path.join(folder, 'objects', key.slice(0, 2)));
  assert.equal((await put()).size, bytes.length);
});

test('an upload whose thread ends is refused, leaves nothing behind, and can be repeated', async () => {
  const folder = path.join(root, 'ended');
  const store = await FileStore.open('files', folder);
  const size = 3_000_000;
  const ending = (last: () => Promise<unknown>): Readable =>
    Readable.from(
      (async function* () {
        yield Buffer.alloc(size - 1);
        await last();
        yield Buffer.alloc(1);
      })(),
    );
  const endThread = () =>
    until('the thread', () => synced.threads.get('pieceThread.ts')).then((thread) => thread.terminate());
  await assert.rejects(
    store.put(randomUUID(), ending(endThread), size, { takesChunks: true }),
    (error) => outageOf(error) === 'unavailable',
  );
  assert.deepEqual(readdirSync(path.join(folder, 'unfinished')), []);
  const lost = store.put(
    randomUUID(),
    ending(() => Promise.reject(new Error('connection lost'))),
    size,
    { takesChunks: true },
  );
  await assert.rejects(lost, /connection lost/);
  assert.deepEqual(readdirSync(path.join(folder, 'unfinished')), []);
  synced.clear();
  const key = randomUUID();
  const { sha256 } = await store.put(
    key,
    ending(() => Promise.resolve()),
    size,
    { takesChunks: true },
  );
  assert.equal(sha256, createHash('sha256').update(Buffer.alloc(size)).digest('hex'));
  for (const name of chainOf(folder).slice(0, 2)) assert.ok(synced.has(statSync(name).ino), name);
});

test('an upload is answered only when the slowest sync of its file and of its folder has ended', async () => {
  const server = await bootServer('sqlite');
  try {
    const bytes = Buffer.alloc(5000, 'x');
    const push = await beginPush(await official(server), await server.as('olivia'), await server.iTwin(), bytes.length);
    synced.holdBack();
    let status: number | undefined;
    const answered = fetch(push.upload, {
      method: 'PUT',
      body: bytes,
      headers: { 'x-ms-blob-type': 'BlockBlob' },
      signal: AbortSignal.timeout(60_000),
    }).then((response) => (status = response.status));
    let syncs = 0;
    for (;;) {
      const next = await until('a sync or the answer', () => synced.next() ?? status);
      if (typeof next === 'number') break;
      // The server answers others meanwhile; the upload waits.
      assert.equal((await fetch(`${server.origin}/health`)).status, 200);
      assert.equal(status, undefined, `answered before sync ${syncs + 1}`);
      syncs++;
      next();
    }
    assert.equal(await answered, 201);
    assert.ok(syncs >= 2, `${syncs} syncs`);
  } finally {
    synced.letGo();
    await endServer(server);
  }
});
