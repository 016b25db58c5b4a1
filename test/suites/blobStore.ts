import assert from 'node:assert/strict';
import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { Readable } from 'node:stream';
import { after, before, describe, test } from 'node:test';
import { NoSuchObjectError, SizeMismatchError, UnknownBlockError, type BlobStore } from '../../apps/server/src/storage/blobStore.ts';

/**
 * What every store keeps to. `make` gives an empty one and what takes it away again; and where stores of the kind can copy from
 * each other, a second one.
 */
export function blobStoreSuite(name: string, make: () => Promise<{ store: BlobStore; twin?: BlobStore; remove: () => Promise<void> }>): void {
  describe(`The blob store ${name}`, () => {
    let store: BlobStore;
    let twin: BlobStore | undefined;
    let remove: () => Promise<void>;
    before(async () => ({ store, twin, remove } = await make()));
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

    test('gives back what was put, whole and by range, and tells its hash', async () => {
      const key = randomUUID();
      const bytes = randomBytes(300_000);
      assert.deepEqual(await store.put(key, Readable.from([bytes.subarray(0, 1000), bytes.subarray(1000)]), bytes.length), { size: bytes.length, sha256: sha256(bytes) });
      assert.deepEqual(await content(key), bytes);
      assert.deepEqual(await content(key, { start: 5, end: 99_999 }), bytes.subarray(5, 100_000));
      assert.ok((await keys()).includes(key));
    });

    test('keeps an empty object', async () => {
      const key = randomUUID();
      assert.equal((await store.put(key, Readable.from([]), 0)).size, 0);
      assert.equal((await content(key)).length, 0);
    });

    test('shows nothing of an object of another size than declared, or of one that broke off', async () => {
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

    test('an upload that never ends stops at the declared size', async () => {
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

    test('puts blocks together in any order, and none that were not staged', async () => {
      const [upload, key] = [randomUUID(), randomUUID()];
      const blocks = [randomBytes(10), randomBytes(20), randomBytes(30)];
      for (const n of [2, 0, 1]) await store.stageBlock(upload, `id/${n}==`, Readable.from([blocks[n]]), 60);
      await assert.rejects(store.commitBlocks(upload, key, ['id/0==', 'other'], 60), UnknownBlockError);
      await assert.rejects(store.commitBlocks(upload, key, ['id/0==', 'id/1=='], 60), SizeMismatchError);
      await assert.rejects(store.read(key), NoSuchObjectError);
      const whole = Buffer.concat(blocks);
      assert.deepEqual(await store.commitBlocks(upload, key, ['id/0==', 'id/1==', 'id/2=='], 60), { size: 60, sha256: sha256(whole) });
      assert.deepEqual(await content(key), whole);
    });

    test('does not stage more than an upload may hold', async () => {
      const upload = randomUUID();
      await store.stageBlock(upload, 'a', Readable.from([randomBytes(70)]), 100);
      await assert.rejects(store.stageBlock(upload, 'b', Readable.from([randomBytes(40)]), 100), SizeMismatchError);
    });

    test('copies an object from another store of its kind, or says that it cannot', async () => {
      const [from, key] = [randomUUID(), randomUUID()];
      const bytes = randomBytes(100_000);
      await (twin ?? store).put(from, Readable.from([bytes]), bytes.length);
      if (twin === undefined) return assert.ok(!('copyFrom' in store));
      assert.ok(store.copyFrom !== undefined);
      assert.deepEqual(await store.copyFrom(twin, from, key, bytes.length), { size: bytes.length, sha256: sha256(bytes) });
      assert.deepEqual(await content(key), bytes);
      const other = randomUUID();
      await assert.rejects(store.copyFrom(twin, from, other, bytes.length - 1), SizeMismatchError);
      await assert.rejects(store.copyFrom(twin, randomUUID(), other, 1), NoSuchObjectError);
      await assert.rejects(store.read(other), NoSuchObjectError);
      const foreign: BlobStore = { ...twin, id: 'of another kind' };
      assert.equal(await store.copyFrom(foreign, from, other, bytes.length), undefined);
    });

    test('belongs to the first installation that claims it', async () => {
      // Whoever opened it for this suite may have been the first.
      const first = await store.claim(randomUUID());
      assert.equal(await store.claim(first), first);
      assert.equal(await store.claim(randomUUID()), first);
      assert.deepEqual((await keys()).filter((key) => key.includes('owner')), []);
    });

    test('forgets what is deleted, also twice, and uploads left unfinished', async () => {
      const [upload, key] = [randomUUID(), randomUUID()];
      await store.put(key, Readable.from([randomBytes(5)]), 5);
      await store.delete(key);
      await store.delete(key);
      await assert.rejects(store.read(key), NoSuchObjectError);
      await store.stageBlock(upload, 'a', Readable.from([randomBytes(5)]), 10);
      await store.dropUnfinished(Date.now() + 1000);
      await assert.rejects(store.commitBlocks(upload, key, ['a'], 5), UnknownBlockError);
    });
  });
}
