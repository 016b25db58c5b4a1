import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { copyFileSync, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { after, before, describe, test } from 'node:test';
import type { FastifyBaseLogger } from 'fastify';
import pino from 'pino';
import { isITwinJsInstalled } from '../apps/server/src/checkpoints/itwinjs/workerProcess.ts';
import type { ConfigInput } from '../apps/server/src/config.ts';
import type { Db } from '../apps/server/src/db/database.ts';
import { verify } from '../apps/server/src/maintenance/verify.ts';
import {
  NoSuchObjectError,
  StoreTimeoutError,
  type BlobStore,
  type CallOptions,
  type StoredTile,
  type TileObjects,
} from '../apps/server/src/storage/blobStore.ts';
import { GuardedStore } from '../apps/server/src/storage/guardedStore.ts';
import { unpack } from '../apps/server/src/viewer/keptAnswer.ts';
import { StoredTiles } from '../apps/server/src/viewer/storedTiles.ts';
import type { Api } from './support/api.ts';
import { all, official, type Official } from './support/clients.ts';
import { linesLogged } from './support/logs.ts';
import { endServer, Installation, setups, type TestServer } from './support/server.ts';
import { until } from './support/until.ts';
import { cloneOf, makePlant, tileOf, type Place } from './support/viewerCalls.ts';

const skip = isITwinJsInstalled() ? false : 'iTwin.js is not installed';
const config = {
  checkpoints: { generate: 'auto' as const, delaySeconds: 0, firstRetrySeconds: 0 },
  viewer: { enabled: true },
  collector: { intervalSeconds: 0, graceSeconds: 0 },
} satisfies ConfigInput;

/** The tiles of a server in its store. */
function storedTilesOf({ services }: TestServer): StoredTiles {
  const stored = services.viewer.storedTiles.get(services.blobs.stores.home.id);
  assert.ok(stored !== undefined, 'the store holds no tiles');
  return stored;
}

function objectsOf({ services }: TestServer): TileObjects {
  const { tiles } = services.blobs.stores.home;
  assert.ok(tiles !== undefined, 'the store holds no tiles');
  return tiles;
}

/** Waits for the tiles that a server writes in the background. */
async function written(server: TestServer): Promise<void> {
  await until('the tiles to be written', () => (storedTilesOf(server).pending === 0 ? true : undefined), 60_000);
}

/** A call of a store that does not answer. */
function hanging(_content: string, _name: string, { signal }: CallOptions = {}): Promise<never> {
  return new Promise((_resolve, reject) =>
    signal?.addEventListener('abort', () => reject(signal.reason as Error), { once: true }),
  );
}

/** A data folder for another server of an installation, with nothing but its users and keys. */
function folderOfAnother({ dataDir }: Installation): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'offshoot-test-'));
  for (const name of ['users.json', 'issuer.json'])
    if (existsSync(path.join(dataDir, name))) copyFileSync(path.join(dataDir, name), path.join(folder, name));
  return folder;
}

for (const setup of setups.filter(({ store }) => store !== 'files'))
  describe(`Tiles in a store on ${setup.store}`, () => {
    let installation: Installation;
    let first: TestServer;
    let second: TestServer;
    let folder: string;
    let olivia: Official;
    let iTwinId: string;
    let api: Api;
    before(async () => {
      installation = await Installation.create(setup);
      first = await installation.start(config);
      folder = folderOfAnother(installation);
      // It has neither the tiles of the first server nor a checkpoint of its own.
      second = await installation.start({
        ...config,
        dataDir: folder,
        checkpoints: { generate: 'off' },
      });
      olivia = await official(first);
      api = await first.as('olivia');
      iTwinId = await first.iTwin();
    });
    after(async () => {
      await second?.close();
      await endServer(first);
      rmSync(folder, { recursive: true, force: true });
    });

    const onFirst = (): { api: Api; server: TestServer } => ({ api, server: first });
    const onSecond = async () => ({ api: await second.as('olivia'), server: second });
    /** An iModel with geometry that the first server has shown. */
    const viewed = async (): Promise<{ place: Place; shown: Buffer }> => {
      const place = { iTwinId, iModelId: await makePlant({ olivia, iTwinId }, 50) };
      const shown = await tileOf(onFirst(), place);
      await written(first);
      return { place, shown };
    };
    const tilesInStore = async (): Promise<StoredTile[]> => all(objectsOf(first).list(undefined));

    test('are shown by a second server, of a source and of its clone, and none is made again', { skip }, async () => {
      const { place, shown } = await viewed();
      const { viewer } = second.services;
      const { made } = viewer.counts;
      assert.deepEqual(await tileOf(await onSecond(), place), shown);
      const { found } = storedTilesOf(second).counts;
      assert.ok(found >= 2, `${found} answers came from the store`);
      const clone = await cloneOf({ olivia, iTwinId }, place.iModelId);
      assert.deepEqual(await tileOf(await onSecond(), clone), shown);
      assert.equal(viewer.counts.made, made);
      // The folder of the server has them now.
      assert.equal(storedTilesOf(second).counts.found, found);
    });

    test('are no files to be verified, no orphans, and no bytes of a user', { skip }, async () => {
      const { database, blobs } = first.services;
      const { place } = await viewed();
      const names = new Set((await tilesInStore()).map(({ name }) => name));
      assert.ok(names.size > 0);
      const verified = await verify(database.db, blobs.stores, true);
      assert.deepEqual([verified.faults, verified.orphanObjects], [[], []]);
      const listed = await all(blobs.stores.home.list());
      assert.deepEqual(
        listed.filter(({ key }) => names.has(key) || key.includes('/')),
        [],
      );
      const { total } = await database.db
        .selectFrom('blob')
        .select((eb) => eb.fn.sum<number>('size').as('total'))
        .executeTakeFirstOrThrow();
      assert.equal(verified.bytes, Number(total));
      assert.equal((await api.delete(`/imodels/${place.iModelId}`)).status, 204);
    });

    test('are made anew if they are damaged', { skip }, async () => {
      const { place, shown } = await viewed();
      const objects = objectsOf(first);
      const damaged = await all(objects.list(undefined));
      for (const { content, name } of damaged) {
        const bytes = await buffer(await objects.read(content, name));
        await objects.put(content, name, bytes.subarray(0, bytes.length - 1));
      }
      const { viewer } = second.services;
      const { made } = viewer.counts;
      assert.deepEqual(await tileOf(await onSecond(), place), shown);
      assert.equal(viewer.counts.made, made + 1);
      await written(second);
      const isWhole = async ({ content, name }: StoredTile): Promise<boolean> =>
        unpack(await buffer(await objects.read(content, name))) !== undefined;
      const stored = await Promise.all((await tilesInStore()).map(isWhole));
      assert.equal(stored.filter((whole) => whole).length, 2, 'the tree and the tile');
    });

    test('are removed with the last iModel that has the content, by any server', { skip }, async () => {
      const { place } = await viewed();
      const newest = (await tilesInStore()).toSorted((one, other) => other.modifiedAt - one.modifiedAt)[0];
      assert.ok(newest !== undefined);
      const isThere = async (): Promise<boolean> =>
        (await all(objectsOf(first).contents())).some((content) => content === newest.content);
      const clone = await cloneOf({ olivia, iTwinId }, place.iModelId);
      assert.equal((await api.delete(`/imodels/${place.iModelId}`)).status, 204);
      for (let n = 0; n < 2; n++) await second.services.collector.runOnce();
      assert.ok(await isThere());
      assert.equal((await api.delete(`/imodels/${clone.iModelId}`)).status, 204);
      await until(
        'the removal',
        async () => {
          await second.services.collector.runOnce();
          return (await isThere()) ? undefined : true;
        },
        60_000,
      );
    });

    for (const [how, read] of [
      ['fails', async () => Promise.reject(new Error('the network is down'))],
      ['hangs', hanging],
    ] as const)
      test(`are made by the back end if the store ${how}, which is logged once`, { skip }, async (t) => {
        const { place, shown } = await viewed();
        const another = folderOfAnother(installation);
        const third = await installation.start({ ...config, dataDir: another });
        try {
          t.mock.method(objectsOf(third), 'read', read);
          t.mock.method(objectsOf(third), 'put', async () => Promise.reject(new Error('the network is down')));
          const lines = linesLogged(t, third, 'info');
          assert.deepEqual(await tileOf({ api: await third.as('olivia'), server: third }, place), shown);
          assert.equal(third.services.viewer.counts.made, 1);
          await written(third);
          const clone = await cloneOf({ olivia, iTwinId }, place.iModelId);
          assert.deepEqual(await tileOf({ api: await third.as('olivia'), server: third }, clone), shown);
          const logged = lines.map(({ msg }) => msg).filter((msg) => msg.startsWith('tiles cannot be'));
          assert.deepEqual(logged, [
            'tiles cannot be read from the store and are made instead',
            'tiles cannot be written to the store, so other servers have to make them too',
          ]);
        } finally {
          await third.close();
          rmSync(another, { recursive: true, force: true });
        }
      });

    test('are removed from the store when the limit is set to 0', { skip }, async () => {
      await viewed();
      const another = folderOfAnother(installation);
      const without = await installation.start({
        ...config,
        dataDir: another,
        viewer: { enabled: true, sharedTilesMiB: 0 },
      });
      try {
        assert.ok((await tilesInStore()).length > 0);
        await without.services.collector.runOnce();
        assert.deepEqual(await tilesInStore(), []);
      } finally {
        await without.close();
        rmSync(another, { recursive: true, force: true });
      }
    });
  });

for (const setup of setups.filter(({ store }) => store === 'files'))
  test('tiles are kept once, in the folder of the server, where the store is a folder too', async () => {
    const installation = await Installation.create(setup);
    const server = await installation.start(config);
    try {
      assert.equal(server.services.blobs.stores.home.tiles, undefined);
      assert.equal(server.services.viewer.storedTiles.size, 0);
    } finally {
      await endServer(server);
    }
  });

const hourMs = 3_600_000;
const contentName = `b-${randomUUID()}-0-5.1.9`;

/** Tiles in memory, with a time that the test sets. */
class MemoryTiles implements TileObjects {
  readonly objects = new Map<string, { bytes: Buffer; modifiedAt: number }>();
  now = Date.now();
  reads = 0;
  /** Replaces writes. */
  onPut: ((options?: CallOptions) => Promise<void>) | undefined;

  async read(content: string, name: string): Promise<Readable> {
    this.reads++;
    const found = this.objects.get(`${content}/${name}`);
    if (found === undefined) throw new NoSuchObjectError(name);
    return Readable.from([found.bytes]);
  }

  async put(content: string, name: string, bytes: Buffer, options?: CallOptions): Promise<void> {
    await this.onPut?.(options);
    this.objects.set(`${content}/${name}`, { bytes, modifiedAt: this.now });
  }

  async delete(content: string, name: string): Promise<void> {
    this.objects.delete(`${content}/${name}`);
  }

  async *contents(): AsyncIterable<string> {
    yield* new Set([...this.objects.keys()].map((key) => path.dirname(key)));
  }

  async *list(content?: string): AsyncIterable<StoredTile> {
    for (const [key, { bytes, modifiedAt }] of [...this.objects])
      if (content === undefined || path.dirname(key) === content)
        yield { content: path.dirname(key), name: path.basename(key), size: bytes.length, modifiedAt };
  }

  get bytes(): number {
    return [...this.objects.values()].reduce((sum, { bytes }) => sum + bytes.length, 0);
  }
}

describe('The tiles of a store', () => {
  const never = new AbortController().signal;
  const unlimited = (): void => undefined;
  const log = pino({ level: 'silent' }) as unknown as FastifyBaseLogger;
  const limit = 2 ** 20;
  const open = (objects: TileObjects): StoredTiles =>
    new StoredTiles({ store: 'a', objects, limit, iTwinJs: () => '5.1.9', log });
  const answerOf = (bytes: number) => ({ contentType: 'text/plain', body: randomBytes(bytes) });
  const settled = (tiles: StoredTiles): Promise<true> =>
    until('the writes', () => (tiles.pending === 0 ? true : undefined), 60_000);
  /** Keeps the limit as the collector does between two thorough runs, which does not need the database. */
  const keepLimit = (tiles: StoredTiles): Promise<void> =>
    tiles.tidy(undefined as unknown as Db, { thorough: false, removed: false }, never);

  test('stay within the limit, and those of the contents that were viewed least recently go first', async () => {
    const objects = new MemoryTiles();
    const contents = Array.from({ length: 30 }, (_, n) => `b-${randomUUID()}-${n}-5.1.9`);
    const [oldest = '', second = ''] = contents;
    objects.now -= 40 * hourMs;
    for (const content of contents) {
      const tiles = open(objects);
      tiles.keep(content, ['tile'], answerOf(40_000));
      // A server writes no more than a twentieth of the limit before the tiles are counted.
      tiles.keep(content, ['another'], answerOf(40_000));
      await settled(tiles);
      assert.deepEqual(tiles.counts, { found: 0, stored: 1, dropped: 1 });
      // The use of a content is remembered with one write, however many of its tiles are read.
      if (content === second) {
        const viewing = open(objects);
        objects.now += 30 * hourMs;
        for (let n = 0; n < 5; n++) assert.ok((await viewing.find(oldest, ['tile'], never, unlimited)) !== undefined);
        await settled(viewing);
        objects.now -= 30 * hourMs;
      }
      objects.now += 1000;
      await keepLimit(tiles);
      assert.ok(objects.bytes <= limit, `${objects.bytes} bytes`);
      tiles.keep(content, ['another'], answerOf(4000));
      await settled(tiles);
      assert.equal(tiles.counts.stored, 2, 'the server may write again');
    }
    const left = new Set(await all(objects.contents()));
    assert.ok(left.has(oldest));
    assert.ok(!left.has(second));
    assert.ok(left.has(contents.at(-1) as string));
    assert.equal(objects.objects.get(`${oldest}/used`)?.bytes.length, 4);
  });

  test('that are not there are looked for once while they are made', async () => {
    const objects = new MemoryTiles();
    const tiles = open(objects);
    for (let n = 0; n < 2; n++) assert.equal(await tiles.find(contentName, ['tile'], never, unlimited), undefined);
    assert.equal(objects.reads, 1);
    const answer = answerOf(100);
    tiles.keep(contentName, ['tile'], answer);
    await settled(tiles);
    assert.deepEqual(await tiles.find(contentName, ['tile'], never, unlimited), answer);
  });

  test('are not written beyond what may wait, and a stop ends the writes', async () => {
    const objects = new MemoryTiles();
    objects.onPut = ({ signal } = {}) => hanging('', '', { signal });
    const tiles = open(objects);
    for (let n = 0; n < 1000; n++) tiles.keep(contentName, [String(n)], answerOf(10));
    assert.ok(tiles.pending <= 504, `${tiles.pending} wait`);
    assert.ok(tiles.counts.dropped >= 496);
    await tiles.stop();
    assert.equal(tiles.pending, 0);
    assert.equal(tiles.counts.stored, 0);
    tiles.keep(contentName, ['later'], answerOf(10));
    assert.equal(tiles.pending, 0);
  });

  test('are not waited for longer than the timeout of the store', async () => {
    const never = (): Promise<never> => new Promise<never>(() => undefined);
    const silent = { [Symbol.asyncIterator]: () => ({ next: never }) };
    const tiles: TileObjects = { read: never, put: never, delete: never, contents: () => silent, list: () => silent };
    const { tiles: guarded } = new GuardedStore({ id: 'a', tiles } as unknown as BlobStore, { timeoutMs: 20 });
    assert.ok(guarded !== undefined);
    const calls = [
      guarded.read(contentName, 'a'),
      guarded.put(contentName, 'a', randomBytes(1)),
      guarded.delete(contentName, 'a'),
      all(guarded.contents()),
      all(guarded.list(contentName)),
    ];
    await Promise.all(calls.map((call) => assert.rejects(call, StoreTimeoutError)));
  });

  test('are not written for a while after a failure', async () => {
    const objects = new MemoryTiles();
    let attempts = 0;
    objects.onPut = () => {
      attempts++;
      return Promise.reject(new Error('the store is down'));
    };
    const tiles = open(objects);
    for (let n = 0; n < 100; n++) tiles.keep(contentName, [String(n)], answerOf(10));
    await settled(tiles);
    // Those that had begun when the first one failed.
    assert.ok(attempts <= 4, `${attempts} attempts`);
    tiles.keep(contentName, ['another'], answerOf(10));
    assert.equal(tiles.pending, 0);
  });
});
