/**
 * Attacks with an upload link to an Azure account, by a user who may push to an iModel of their own. Azure's permissions are coarse: the permission
 * to write blocks includes leases, snapshots and access tiers. None of that persists, exceeds a bound, or stops the collector.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { BlobServiceClient, BlockBlobClient, type ContainerClient } from '@azure/storage-blob';
import { collect } from '../../apps/server/src/collector/collect.ts';
import { Api, type WireError } from '../support/api.ts';
import { official } from '../support/clients.ts';
import { beginPush, type BegunPush } from '../support/push.ts';
import { bootServer, endServer, setups, storeConfig, type TestServer } from '../support/server.ts';

const setup = setups.find(({ store }) => store === 'azure');
const options = {
  graceMs: 0,
  uploadLifeMs: -1000,
  completionLifeMs: -1000,
  groupLifeMs: 1e9,
  seeds: new Map<string, string>(),
  thorough: false,
};
const blockId = (n: number): string => Buffer.from(String(n).padStart(6, '0')).toString('base64');

describe(
  'an upload link of an Azure account',
  { skip: setup === undefined ? 'there is no server for azure' : false },
  () => {
    let server: TestServer;
    let account: ContainerClient;
    let prefix: string;
    before(async () => {
      const store = storeConfig('azure') as { connectionString: string; container: string; prefix: string };
      server = await bootServer(setup as NonNullable<typeof setup>, { store });
      account = BlobServiceClient.fromConnectionString(store.connectionString).getContainerClient(store.container);
      prefix = store.prefix;
    });
    after(() => endServer(server));

    const begin = async (size: number): Promise<BegunPush> =>
      beginPush(await official(server), await server.as('olivia'), await server.iTwin(), size);
    /** The blob behind a link, as the holder of the link can access it. */
    const blobOf = ({ upload }: BegunPush): BlockBlobClient =>
      new BlockBlobClient(upload, undefined, { retryOptions: { maxTries: 1 } });
    const put = (begun: BegunPush, bytes: Buffer, headers: Record<string, string> = {}) =>
      new Api('').put(begun.upload, bytes, { 'x-ms-blob-type': 'BlockBlob', ...headers });
    const run = () => collect(server.services.database, server.services.blobs.stores, options);
    /** Ends the leases of all pushes, as their expiry would. */
    const endPushes = async (): Promise<void> =>
      void (await server.services.database.db.updateTable('pending_changeset').set({ lease_until: 0 }).execute());

    async function left(): Promise<string[]> {
      const names: string[] = [];
      for await (const { name } of account.listBlobsFlat({
        prefix: `${prefix}uploads/`,
        includeSnapshots: true,
        includeUncommitedBlobs: true,
      }))
        names.push(name);
      return names;
    }

    test('permits writing and no other operation of Azure', async () => {
      const begun = await begin(20);
      assert.equal(new URL(begun.upload).searchParams.get('sp'), 'w');
      assert.equal((await put(begun, randomBytes(20))).status, 201);
      for (const attempt of [
        () => blobOf(begun).download(),
        () => blobOf(begun).delete(),
        () => blobOf(begun).setTags({ a: 'b' }),
      ])
        await assert.rejects(attempt, ({ statusCode }: { statusCode?: number }) => statusCode === 403);
    });

    test('that was used to take an infinite lease and snapshots leaves nothing behind, and does not stop the collector', async () => {
      const leased = await begin(20);
      await put(leased, randomBytes(20));
      await blobOf(leased).createSnapshot();
      await blobOf(leased).getBlobLeaseClient().acquireLease(-1);
      const staged = await begin(20);
      await blobOf(staged).stageBlock(blockId(0), randomBytes(20), 20);
      await blobOf(staged).getBlobLeaseClient().acquireLease(-1);
      // Listed after or before them, depending on the id: the collector reaches each.
      const plain = await begin(20);
      await put(plain, randomBytes(20));
      assert.ok((await left()).length >= 4);
      await endPushes();
      await run();
      assert.deepEqual(await left(), []);
    });

    test('that was used to take an infinite lease can still be completed, and leaves nothing behind', async () => {
      const begun = await begin(20);
      const bytes = randomBytes(20);
      await put(begun, bytes);
      await blobOf(begun).createSnapshot();
      await blobOf(begun).getBlobLeaseClient().acquireLease(-1);
      assert.equal((await begun.complete()).status, 200);
      assert.deepEqual(await begun.content(), bytes);
      assert.deepEqual(await left(), []);
    });

    test('keeps no more than three times the declared bytes in the account', async () => {
      const [blocks, snapshots] = [await begin(1000), await begin(1000)];
      for (let n = 0; n < 4; n++) await blobOf(blocks).stageBlock(blockId(n), randomBytes(1000), 1000);
      for (let n = 0; n < 4; n++) {
        await put(snapshots, randomBytes(1000));
        await blobOf(snapshots).createSnapshot();
      }
      const fair = await begin(1000);
      await put(fair, randomBytes(1000));
      for (let n = 0; n < 2; n++) await blobOf(fair).stageBlock(blockId(n), randomBytes(900), 900);
      // These are still pending, and so is the one within its bound.
      await collect(server.services.database, server.services.blobs.stores, {
        ...options,
        uploadLifeMs: 3_600_000,
        completionLifeMs: 3_600_000,
      });
      assert.equal(new Set(await left()).size, 1);
      assert.equal((await fair.complete()).status, 200);
      // The others can be uploaded as declared.
      const bytes = randomBytes(1000);
      assert.equal((await put(blocks, bytes)).status, 201);
      assert.equal((await blocks.complete()).status, 200);
      assert.deepEqual(await blocks.content(), bytes);
      // A blob that is uploaded after its pending blob is gone is deleted at once.
      await put(fair, randomBytes(1000));
      await endPushes();
      await run();
      assert.deepEqual(await left(), []);
    });

    test('does not choose the access tier of its file: another tier is reset, and an unreadable file is refused', async () => {
      const cool = await begin(20);
      const bytes = randomBytes(20);
      assert.equal((await put(cool, bytes, { 'x-ms-access-tier': 'Cool' })).status, 201);
      assert.equal((await cool.complete()).status, 200);
      assert.deepEqual(await cool.content(), bytes);
      for await (const { name, properties } of account.listBlobsFlat({ prefix: `${prefix}objects/` }))
        assert.ok(
          properties.accessTier === 'Hot' || properties.accessTierInferred === true,
          `${name} is ${properties.accessTier}`,
        );

      const archived = await begin(20);
      assert.equal((await put(archived, bytes, { 'x-ms-access-tier': 'Archive' })).status, 201);
      const pages = await begin(512);
      assert.equal(
        (await new Api('').put(pages.upload, '', { 'x-ms-blob-type': 'PageBlob', 'x-ms-blob-content-length': '512' }))
          .status,
        201,
      );
      for (const begun of [archived, pages]) {
        const refused = await begun.complete();
        assert.deepEqual(
          [refused.status, (refused.body as WireError).error.code],
          [404, 'FileNotFound'],
          JSON.stringify(refused.body),
        );
      }
      // A client that gets this error may upload again.
      assert.equal((await put(archived, bytes)).status, 201);
      assert.equal((await archived.complete()).status, 200);
      await endPushes();
      await run();
      assert.deepEqual(await left(), []);
    });
  },
);

describe('An object that cannot be deleted', () => {
  test('does not keep the collector from deleting others, and the run reports it', async () => {
    const server = await bootServer('sqlite');
    try {
      const { database, blobs } = server.services;
      const { home } = blobs.stores;
      const begun = await Promise.all(
        [1, 2, 3].map(async () =>
          beginPush(await official(server), await server.as('olivia'), await server.iTwin(), 20),
        ),
      );
      for (const { upload, complete } of begun) {
        await new Api('').put(upload, randomBytes(20), { 'x-ms-blob-type': 'BlockBlob' });
        await complete();
      }
      const keys = (
        await database.db
          .selectFrom('changeset as c')
          .innerJoin('blob as b', 'b.id', 'c.blob_id')
          .select('b.key')
          .execute()
      ).map(({ key }) => key as string);
      const remove = home.delete.bind(home);
      home.delete = async (key, how) => (key === keys[0] ? Promise.reject(new Error('held')) : remove(key, how));
      const api = await server.as('olivia');
      for (const { iModelId } of begun) assert.equal((await api.delete(`/imodels/${iModelId}`)).status, 204);
      await assert.rejects(collect(database, blobs.stores, options), AggregateError);
      const there = new Set<string>();
      for await (const { key } of home.list()) there.add(key);
      assert.deepEqual(
        keys.map((key) => there.has(key)),
        [true, false, false],
      );
    } finally {
      await endServer(server);
    }
  });
});
