import assert from 'node:assert/strict';
import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Readable } from 'node:stream';
import { after, describe, test } from 'node:test';
import { blockBytes, ModelFiles, type ModelFile } from '../apps/server/src/checkpoints/modelFiles.ts';
import { guidBytes } from '../apps/server/src/checkpoints/identity.ts';
import type { Database } from '../apps/server/src/db/database.ts';
import type { Blobs } from '../apps/server/src/storage/blobs.ts';
import type { ByteRange, OpenObject } from '../apps/server/src/storage/blobStore.ts';
import { FileStore } from '../apps/server/src/storage/fileStore.ts';
import { ContentMismatchError } from '../apps/server/src/storage/verifiedReads.ts';

const folder = mkdtempSync(path.join(tmpdir(), 'offshoot-ranges-'));
const store = await FileStore.open('files', folder);
after(() => rmSync(folder, { recursive: true }));

/** A file of three blocks in one object, one in an object of its own, and a short one. An id crosses a boundary of blocks. */
const content = randomBytes(4 * blockBytes + 100_000);
const identity = { iModelId: randomUUID(), iTwinId: randomUUID() };
const offsets = { iModelIdOffset: 2 * blockBytes - 5, iTwinIdOffset: 3 * blockBytes + 524_280 };

async function stored(bytes: Buffer): Promise<string> {
  const key = randomUUID();
  await store.put(key, Readable.from([bytes]), bytes.length);
  return key;
}

const [shared, single, last] = [
  await stored(content.subarray(0, 3 * blockBytes)),
  await stored(content.subarray(3 * blockBytes, 4 * blockBytes)),
  await stored(content.subarray(4 * blockBytes)),
];

function modelFile(keys: readonly [key: string, start: number][]): ModelFile {
  const blocks = keys.map(([key, start], n) => ({
    id: String(n),
    store: store.id,
    key,
    start,
    sha256: createHash('sha256')
      .update(content.subarray(n * blockBytes, (n + 1) * blockBytes))
      .digest('hex'),
  }));
  return { id: randomUUID(), size: content.length, blocks, ...offsets };
}

const places: [string, number][] = [
  [shared, 0],
  [shared, blockBytes],
  [shared, 2 * blockBytes],
  [single, 0],
  [last, 0],
];
const expected = Buffer.from(content);
guidBytes(identity.iModelId).copy(expected, offsets.iModelIdOffset);
guidBytes(identity.iTwinId).copy(expected, offsets.iTwinIdOffset);

async function bytesOf(object: OpenObject): Promise<Buffer> {
  const chunks: Buffer[] = [];
  await object.pour((chunk) => {
    chunks.push(Buffer.from(chunk));
    return Promise.resolve();
  });
  return Buffer.concat(chunks);
}

const kinds = { 'that opens files': true, 'of streams only': false };
for (const [kind, opens] of Object.entries(kinds))
  describe(`A model file in a store ${kind}`, () => {
    const blobs = {
      opener: ({ key }: { key: string }) => (opens ? (range?: ByteRange) => store.openObject(key, range) : undefined),
      read: ({ key }: { key: string }, range?: ByteRange) => store.read(key, range),
    } as unknown as Blobs;
    const files = new ModelFiles(undefined as unknown as Database, blobs);

    test('has the ids of its iModel in every range, also across blocks, and keeps its stored bytes', async () => {
      const end = content.length - 1;
      const ranges: [number, number][] = [
        [0, end],
        [0, 0],
        [end, end],
        [blockBytes - 1, blockBytes],
        [2 * blockBytes - 5, 2 * blockBytes + 10],
        [2 * blockBytes, 2 * blockBytes + 3],
        [3 * blockBytes + 524_285, 3 * blockBytes + 600_000],
        [10, 4 * blockBytes + 10],
      ];
      for (const [from, to] of ranges) {
        const bytes = await bytesOf(await files.open(modelFile(places), identity, { start: from, end: to }));
        assert.ok(bytes.equals(expected.subarray(from, to + 1)), `${from}-${to}`);
      }
      const target = path.join(folder, 'written');
      await files.writeTo(modelFile(places), identity, target, {});
      assert.ok(readFileSync(target).equals(expected), 'the file written to disk');
      assert.ok((await bytesOf(await files.open(modelFile(places), identity))).equals(expected));
    });

    test('is refused when a block is short', async () => {
      const damaged = modelFile([...places.slice(0, 3), [last, 0], [last, 0]] as [string, number][]);
      await assert.rejects(async () => bytesOf(await files.open(damaged, identity)), ContentMismatchError);
    });
  });
