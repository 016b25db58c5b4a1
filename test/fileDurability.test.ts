import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Readable } from 'node:stream';
import { after, before, test } from 'node:test';
import { FileStore } from '../apps/server/src/storage/fileStore.ts';
import { official } from './support/clients.ts';
import { beginPush } from './support/push.ts';
import { bootServer, endServer } from './support/server.ts';
import { until } from './support/until.ts';

/**
 * A power failure cannot be simulated here. A file survives one if its bytes and the folder entries of its path were synced
 * before the store acknowledged it, so the tests observe the syncs.
 */
const synced = new Set<number>();
/** Syncs that wait for a test to let them go on; undefined while none is held back. */
let heldBack: (() => void)[] | undefined;
let restore = (): void => undefined;
const root = mkdtempSync(path.join(tmpdir(), 'offshoot-sync-'));

before(async () => {
  const handle = await open(root, 'r');
  const prototype = Object.getPrototypeOf(handle) as Pick<FileHandle, 'sync' | 'datasync' | 'stat'>;
  await handle.close();
  const { sync, datasync } = prototype;
  const watched = (original: () => Promise<void>) =>
    async function (this: FileHandle): Promise<void> {
      const { ino } = await this.stat();
      if (heldBack !== undefined) await new Promise<void>((resolve) => heldBack?.push(resolve) ?? resolve());
      await original.call(this);
      synced.add(ino);
    };
  Object.assign(prototype, { sync: watched(sync), datasync: watched(datasync) });
  restore = () => void Object.assign(prototype, { sync, datasync });
});
after(() => {
  restore();
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

test('an upload is answered only when the slowest sync of its file and of its folder has ended', async () => {
  const server = await bootServer('sqlite');
  try {
    const bytes = Buffer.alloc(5000, 'x');
    const push = await beginPush(await official(server), await server.as('olivia'), await server.iTwin(), bytes.length);
    heldBack = [];
    let status: number | undefined;
    const answered = fetch(push.upload, {
      method: 'PUT',
      body: bytes,
      headers: { 'x-ms-blob-type': 'BlockBlob' },
      signal: AbortSignal.timeout(60_000),
    }).then((response) => (status = response.status));
    let syncs = 0;
    for (;;) {
      const next = await until('a sync or the answer', () => heldBack?.shift() ?? status);
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
    for (const release of heldBack ?? []) release();
    heldBack = undefined;
    await endServer(server);
  }
});
