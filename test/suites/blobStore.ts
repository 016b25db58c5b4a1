import assert from 'node:assert/strict';
import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { after, before, describe, test } from 'node:test';
import { setImmediate as turnOfLoop } from 'node:timers/promises';
import {
  ChecksumMismatchError,
  NoSuchObjectError,
  SizeMismatchError,
  UnknownBlockError,
  type BlobStore,
} from '../../apps/server/src/storage/blobStore.ts';

/**
 * The conformance suite of every store. `make` returns an empty store and its cleanup and, where stores of the kind can copy from
 * each other, a second one.
 */
export function blobStoreSuite(
  name: string,
  make: () => Promise<{ store: BlobStore; counterpart?: BlobStore; remove: () => Promise<void> }>,
): void {
  describe(`The blob store ${name}`, () => {
    let store: BlobStore;
    let counterpart: BlobStore | undefined;
    let remove: () => Promise<void>;
    before(async () => ({ store, counterpart, remove } = await make()));
    after(() => remove());

    const content = async (key: string, range?: { start: number; end: number }): Promise<Buffer> => {
      const parts: Buffer[] = [];
      for await (const part of await store.read(key, range)) parts.push(part as Buffer);
      return Buffer.concat(parts);
    };
    const keys = async (): Promise<string[]> => {
      const found: string[] = [];
      for await (const { key } of store.list()) found.push(key);
      return found;
    };
    const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

    test('returns what was stored, whole and by range, and reports its hash', async () => {
      const key = randomUUID();
      const bytes = randomBytes(300_000);
      assert.deepEqual(
        await store.put(key, Readable.from([bytes.subarray(0, 1000), bytes.subarray(1000)]), bytes.length),
        { size: bytes.length, sha256: sha256(bytes) },
      );
      assert.deepEqual(await content(key), bytes);
      assert.deepEqual(await content(key, { start: 5, end: 99_999 }), bytes.subarray(5, 100_000));
      assert.ok((await keys()).includes(key));
    });

    test('gives an object out whole and by range, to several sinks at once, each at its own pace', async (t) => {
      const openObject = store.openObject?.bind(store);
      if (openObject === undefined) return t.skip('the store has streams only');
      const key = randomUUID();
      const bytes = randomBytes(3_500_000);
      await store.put(key, Readable.from([bytes]), bytes.length);
      const poured = async (range?: { start: number; end: number }, turns = 0): Promise<Buffer> => {
        const parts: Buffer[] = [];
        await (
          await openObject(key, range)
        ).pour(async (chunk) => {
          // The memory is used again afterwards, so what is not copied now would change.
          for (let turn = 0; turn < turns; turn++) await turnOfLoop();
          parts.push(Buffer.from(chunk));
        });
        return Buffer.concat(parts);
      };
      const ranges = [undefined, { start: 5, end: 2_999_999 }, { start: 3_400_000, end: 9_999_999 }];
      const found = await Promise.all(ranges.flatMap((range) => [0, 1, 20].map((turns) => poured(range, turns))));
      found.forEach((each, n) => {
        const range = ranges[Math.floor(n / 3)];
        assert.ok(each.equals(range === undefined ? bytes : bytes.subarray(range.start, range.end + 1)), `case ${n}`);
      });
      assert.ok((await poured()).equals(bytes), 'later readers get their own bytes too');
      await assert.rejects(
        (await openObject(key)).pour(() => Promise.reject(new Error('the sink is full'))),
        /the sink is full/,
      );
      await (await openObject(key)).close();
      await assert.rejects(openObject(randomUUID()), NoSuchObjectError);
    });

    test('keeps an empty object', async () => {
      const key = randomUUID();
      assert.equal((await store.put(key, Readable.from([]), 0)).size, 0);
      assert.equal((await content(key)).length, 0);
    });

    test('shows nothing of an object of a size other than declared, or of an interrupted one', async () => {
      const key = randomUUID();
      await assert.rejects(store.put(key, Readable.from([randomBytes(10)]), 11), SizeMismatchError);
      await assert.rejects(store.put(key, Readable.from([randomBytes(10)]), 9), SizeMismatchError);
      const broken = Readable.from(
        (async function* () {
          yield randomBytes(10);
          throw new Error('connection lost');
        })(),
      );
      await assert.rejects(store.put(key, broken, 20), /connection lost/);
      await assert.rejects(store.read(key), NoSuchObjectError);
      assert.ok(!(await keys()).includes(key));
    });

    test('keeps large files whose chunks it may take, several at once, in one piece and in blocks', async () => {
      const blockBytes = 1_500_000;
      // Memory of their own, memory that other chunks share, and empty chunks.
      const chunked = async function* (bytes: Buffer): AsyncGenerator<Buffer> {
        for (let start = 0; start < bytes.length; start += 100_000) {
          const chunk = bytes.subarray(start, start + 100_000);
          yield start % 200_000 === 0 ? Buffer.from(Uint8Array.from(chunk).buffer) : Buffer.from(chunk);
          yield Buffer.alloc(0);
        }
      };
      const body = (bytes: Buffer): Readable => Readable.from(chunked(bytes));
      await Promise.all(
        [0, 1, 2].map(async () => {
          const bytes = randomBytes(2 * blockBytes);
          const [key, upload, committed] = [randomUUID(), randomUUID(), randomUUID()];
          const expected = { size: bytes.length, sha256: sha256(bytes) };
          assert.deepEqual(await store.put(key, body(bytes), bytes.length, { takesChunks: true }), expected);
          for (const n of [1, 0])
            await store.stageBlock(
              upload,
              `${n}`,
              body(bytes.subarray(n * blockBytes, (n + 1) * blockBytes)),
              bytes.length,
              { takesChunks: true },
            );
          const md5 = createHash('md5').update(bytes).digest('hex');
          const commit = (given: string) =>
            store.commitBlocks(upload, committed, ['0', '1'], bytes.length, { md5: given });
          await assert.rejects(commit('0'.repeat(32)), ChecksumMismatchError);
          assert.deepEqual(await commit(md5), expected);
          for (const stored of [key, committed]) assert.ok((await content(stored)).equals(bytes));
          const short = store.put(randomUUID(), body(bytes), bytes.length + 1, { takesChunks: true });
          await assert.rejects(short, SizeMismatchError);
        }),
      );
    });

    test('stops an endless upload at the declared size', async () => {
      let given = 0;
      const endless = Readable.from(
        (async function* () {
          for (;;) {
            given += 1000;
            yield randomBytes(1000);
          }
        })(),
      );
      await assert.rejects(store.put(randomUUID(), endless, 10_000), SizeMismatchError);
      assert.ok(given < 100_000);
    });

    test('assembles blocks in any order, and only staged ones', async () => {
      const [upload, key] = [randomUUID(), randomUUID()];
      const blocks = [randomBytes(10), randomBytes(20), randomBytes(30)];
      for (const n of [2, 0, 1]) await store.stageBlock(upload, `id/${n}==`, Readable.from([blocks[n]]), 60);
      await assert.rejects(store.commitBlocks(upload, key, ['id/0==', 'other'], 60), UnknownBlockError);
      await assert.rejects(store.commitBlocks(upload, key, ['id/0==', 'id/1=='], 60), SizeMismatchError);
      await assert.rejects(store.read(key), NoSuchObjectError);
      const whole = Buffer.concat(blocks);
      assert.deepEqual(
        await store.stagedBlocks(upload),
        new Map(blocks.map((block, n) => [`id/${n}==`, block.length])),
      );
      assert.deepEqual(await store.commitBlocks(upload, key, ['id/0==', 'id/1==', 'id/2=='], 60), {
        size: 60,
        sha256: sha256(whole),
      });
      assert.deepEqual(await content(key), whole);
    });

    const staged = async (upload: string, blockId: string): Promise<Buffer> =>
      buffer(await store.readBlock(upload, blockId));

    test('replaces an earlier block with the same id, and keeps it when the new one is interrupted or too long', async () => {
      const upload = randomUUID();
      for (let n = 0; n < 5; n++) await store.stageBlock(upload, 'a', Readable.from([Buffer.from(`try ${n}`)]), 5);
      const broken = Readable.from(
        (async function* () {
          yield Buffer.from('tr');
          throw new Error('connection lost');
        })(),
      );
      await assert.rejects(store.stageBlock(upload, 'a', broken, 5), /connection lost/);
      await assert.rejects(store.stageBlock(upload, 'a', Readable.from([Buffer.from('longer')]), 5), SizeMismatchError);
      assert.equal((await staged(upload, 'a')).toString(), 'try 4');
      assert.deepEqual(await store.stagedBlocks(upload), new Map([['a', 5]]));
      await assert.rejects(store.readBlock(upload, 'b'), UnknownBlockError);
    });

    test('keeps the blocks of a commit until they are dropped, so that it can be repeated', async () => {
      const upload = randomUUID();
      const bytes = randomBytes(40);
      await Promise.all(
        [0, 1, 2, 3].map((n) =>
          store.stageBlock(upload, `b${n}`, Readable.from([bytes.subarray(10 * n, 10 * n + 10)]), 40),
        ),
      );
      for (const key of [randomUUID(), randomUUID()]) {
        await store.commitBlocks(upload, key, ['b0', 'b1', 'b2', 'b3'], 40);
        assert.deepEqual(await content(key), bytes);
      }
      await store.dropBlocks(upload);
      await store.dropBlocks(upload);
      assert.equal((await store.stagedBlocks(upload)).size, 0);
    });

    test('keeps nothing of a commit whose MD5 does not match', async () => {
      const [upload, key] = [randomUUID(), randomUUID()];
      const bytes = randomBytes(20);
      await store.stageBlock(upload, 'a', Readable.from([bytes]), 20);
      const md5 = createHash('md5').update(bytes).digest('hex');
      await assert.rejects(
        store.commitBlocks(upload, key, ['a'], 20, { md5: md5.replace(/^./, (digit) => (digit === '0' ? '1' : '0')) }),
        ChecksumMismatchError,
      );
      await assert.rejects(store.read(key), NoSuchObjectError);
      assert.equal((await store.commitBlocks(upload, key, ['a'], 20, { md5 })).sha256, sha256(bytes));
    });

    test('stages at most twice the size of an upload, and keeps the blocks of the last attempt', async () => {
      const upload = randomUUID();
      await assert.rejects(store.stageBlock(upload, 'x', Readable.from([randomBytes(101)]), 100), SizeMismatchError);
      const bytes = randomBytes(100);
      for (let attempt = 0; attempt < 8; attempt++) {
        for (let n = 0; n < 5; n++)
          await store.stageBlock(upload, `${attempt}/${n}`, Readable.from([bytes.subarray(20 * n, 20 * n + 20)]), 100);
        const sizes = [...(await store.stagedBlocks(upload)).values()];
        assert.ok(sizes.reduce((sum, size) => sum + size, 0) <= 200);
        const key = randomUUID();
        await store.commitBlocks(
          upload,
          key,
          [0, 1, 2, 3, 4].map((n) => `${attempt}/${n}`),
          100,
        );
        assert.deepEqual(await content(key), bytes);
      }
    });

    test('copies an object from another store of its kind, or reports that it cannot', async () => {
      const [from, key] = [randomUUID(), randomUUID()];
      const bytes = randomBytes(100_000);
      await (counterpart ?? store).put(from, Readable.from([bytes]), bytes.length);
      if (counterpart === undefined) return assert.ok(!('copyFrom' in store));
      assert.ok(store.copyFrom !== undefined);
      assert.deepEqual(await store.copyFrom(counterpart, from, key, bytes.length), {
        size: bytes.length,
        sha256: sha256(bytes),
      });
      assert.deepEqual(await content(key), bytes);
      const other = randomUUID();
      await assert.rejects(store.copyFrom(counterpart, from, other, bytes.length - 1), SizeMismatchError);
      await assert.rejects(store.copyFrom(counterpart, randomUUID(), other, 1), NoSuchObjectError);
      await assert.rejects(store.read(other), NoSuchObjectError);
      const foreign: BlobStore = { ...counterpart, id: 'of another kind' };
      assert.equal(await store.copyFrom(foreign, from, other, bytes.length), undefined);
    });

    test('keeps tiles by content, beside its objects', async (t) => {
      const { tiles } = store;
      if (tiles === undefined) return t.skip('the store keeps no tiles');
      const [one, other] = [`s-${randomUUID()}-12-5.1.9`, `b-${randomUUID()}-0-5.1.9`];
      const bytes = randomBytes(1000);
      const read = async (content: string, name: string): Promise<Buffer> => buffer(await tiles.read(content, name));
      await assert.rejects(read(one, 'a'), NoSuchObjectError);
      await tiles.put(one, 'a', randomBytes(10));
      await tiles.put(one, 'a', bytes);
      await tiles.put(one, 'b', bytes.subarray(1));
      await tiles.put(other, 'a', bytes.subarray(2));
      assert.deepEqual(await read(one, 'a'), bytes);
      assert.deepEqual(await read(other, 'a'), bytes.subarray(2));
      const contents: string[] = [];
      for await (const content of tiles.contents()) contents.push(content);
      assert.deepEqual(contents.toSorted(), [other, one]);
      const listed = async (content?: string): Promise<[string, string, number][]> => {
        const found: [string, string, number][] = [];
        for await (const { content: of, name, size } of tiles.list(content)) found.push([of, name, size]);
        return found.toSorted(([a, b], [c, d]) => (a + b < c + d ? -1 : 1));
      };
      const ofOne: [string, string, number][] = [
        [one, 'a', 1000],
        [one, 'b', 999],
      ];
      assert.deepEqual(await listed(one), ofOne);
      assert.deepEqual(await listed(), [[other, 'a', 998], ...ofOne]);
      assert.ok((await keys()).every((key) => !key.includes(one) && !key.includes(other)));
      await assert.rejects(tiles.put('..', 'a', bytes), /not the name of a tile/);
      await assert.rejects(tiles.put(one, 'a/b', bytes), /not the name of a tile/);
      for (const name of ['a', 'a', 'b']) await tiles.delete(one, name);
      assert.deepEqual(await listed(), [[other, 'a', 998]]);
    });

    test('belongs to the first installation that claims it', async () => {
      // The caller that opened it for this suite may have claimed it first.
      const first = await store.claim(randomUUID());
      assert.equal(await store.claim(first), first);
      assert.equal(await store.claim(randomUUID()), first);
      assert.deepEqual(
        (await keys()).filter((key) => key.includes('owner')),
        [],
      );
    });

    test('deletes objects idempotently, and unfinished uploads', async () => {
      const [upload, key] = [randomUUID(), randomUUID()];
      await store.put(key, Readable.from([randomBytes(5)]), 5);
      await store.delete(key);
      await store.delete(key);
      await assert.rejects(store.read(key), NoSuchObjectError);
      await store.stageBlock(upload, 'a', Readable.from([randomBytes(5)]), 10);
      await store.dropUnfinished(Date.now() + 1000, { isAwaited: async (asked) => asked === upload });
      assert.equal((await staged(upload, 'a')).length, 5);
      await store.dropUnfinished(Date.now() + 1000, { isAwaited: async () => false });
      await assert.rejects(store.commitBlocks(upload, key, ['a'], 5), UnknownBlockError);
    });
  });
}
