import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, test } from 'node:test';
import { AccountSASPermissions, AccountSASResourceTypes, BlobServiceClient } from '@azure/storage-blob';
import { AzureClientStorage, BlockBlobClientWrapperFactory } from '@itwin/object-storage-azure';
import { collect } from '../apps/server/src/collector/collect.ts';
import { StoreUnavailableError } from '../apps/server/src/storage/stores.ts';
import { sampleBaseline } from '../scripts/sample.ts';
import { Api, type Answer } from './support/api.ts';
import { all, changesetIdOf, makeIModel, official, workFolder } from './support/clients.ts';
import { beginPush, downloadLink } from './support/push.ts';
import {
  bootServer,
  endServer,
  Installation,
  setups,
  storeConfig,
  type Setup,
  type TestServer,
} from './support/server.ts';

const blockBlob = { 'x-ms-blob-type': 'BlockBlob' };
const setupOf = (store: Setup['store']): Setup | undefined => setups.find((setup) => setup.store === store);
const skip = (store: Setup['store']) => (setupOf(store) === undefined ? `there is no server for ${store}` : false);

/** Counts requests to the server's own data plane. */
function countTransfers({ running }: TestServer): () => number {
  let count = 0;
  running.app.server.on(
    'request',
    ({ url }: { url?: string }) => (count += url?.startsWith('/storage/') === true ? 1 : 0),
  );
  return () => count;
}

async function on(store: Setup['store'], work: (server: TestServer) => Promise<void>): Promise<void> {
  const server = await bootServer(setupOf(store) as Setup);
  try {
    await work(server);
  } finally {
    await endServer(server);
  }
}

const begin = async (server: TestServer, fileSize: number) =>
  beginPush(await official(server), await server.as('olivia'), await server.iTwin(), fileSize);
const codeOf = ({ body }: Answer): string => (body as { error: { code: string } }).error.code;
const put = (link: string, bytes: Buffer): Promise<Answer> => new Api('').put(link, bytes, blockBlob);

describe('Clients of an Azure store', { skip: skip('azure') }, () => {
  test('push and pull changesets and upload baselines without sending a byte through the server', async () => {
    await on('azure', async (server) => {
      const transfers = countTransfers(server);
      const { client, authorization } = await official(server);
      const iTwinId = await server.iTwin();
      const work = workFolder();
      try {
        const made = await makeIModel({ client, authorization }, iTwinId, { changesets: 3 });
        const files = await client.changesets.downloadList({
          authorization,
          iModelId: made.id,
          targetDirectoryPath: work.path,
        });
        assert.deepEqual(
          files.map(({ filePath }) => readFileSync(filePath)),
          made.changesets.map(({ bytes }) => bytes),
        );
        const seed = path.join(work.path, 'seed.bim');
        writeFileSync(seed, sampleBaseline());
        const imported = await client.iModels.createFromBaseline({
          authorization,
          iModelProperties: { iTwinId, name: 'brought', filePath: seed },
        });
        const baseline = await client.baselineFiles.getSingle({ authorization, iModelId: imported.id });
        const downloaded = Buffer.from(await (await fetch(baseline._links.download?.href ?? '')).arrayBuffer());
        assert.deepEqual(downloaded, readFileSync(seed));
        assert.equal(transfers(), 0);
      } finally {
        work.remove();
      }
    });
  });

  test('cannot change a completed file with its upload link', async () => {
    await on('azure', async (server) => {
      const bytes = randomBytes(50);
      const begun = await begin(server, 50);
      assert.equal((await put(begun.upload, bytes)).status, 201);
      assert.equal((await begun.complete()).status, 200);
      await put(begun.upload, randomBytes(50));
      assert.deepEqual(await begun.content(), bytes);
      assert.equal((await begun.complete()).status, 200);
      assert.deepEqual(await begun.content(), bytes);
    });
  });

  test('get an error for a missing upload or a wrong size, and may upload again', async () => {
    await on('azure', async (server) => {
      const begun = await begin(server, 50);
      assert.equal(codeOf(await begun.complete()), 'FileNotFound');
      for (const size of [49, 51]) {
        await put(begun.upload, randomBytes(size));
        const refused = await begun.complete();
        assert.deepEqual([refused.status, codeOf(refused)], [409, 'DataConflict']);
      }
      const bytes = randomBytes(50);
      await put(begun.upload, bytes);
      // Repeating a completion that is still running is harmless.
      const both = await Promise.all([begun.complete(), begun.complete()]);
      assert.deepEqual(
        both.map(({ status }) => status),
        [200, 200],
      );
      assert.deepEqual(await begun.content(), bytes);
    });
  });

  test('get links that are valid for one file and one direction', async () => {
    await on('azure', async (server) => {
      const api = await server.as('olivia');
      const [first, second] = [await begin(server, 20), await begin(server, 20)];
      for (const begun of [first, second]) {
        await put(begun.upload, randomBytes(20));
        assert.equal((await begun.complete()).status, 200);
      }
      const [link, other] = [
        new URL(await downloadLink(api, first.iModelId)),
        new URL(await downloadLink(api, second.iModelId)),
      ];
      const before = await first.content();
      const moved = new URL(link);
      moved.pathname = other.pathname;
      assert.equal((await fetch(moved)).status, 403);
      assert.equal((await put(link.href, randomBytes(20))).status, 403);
      assert.equal((await fetch(first.upload)).status, 403);
      const elsewhere = new URL(first.upload);
      elsewhere.pathname = link.pathname;
      assert.equal((await put(elsewhere.href, randomBytes(20))).status, 403);
      assert.deepEqual(await first.content(), before);
    });
  });

  test('leave no orphans: the collector removes uploads that were never completed', async () => {
    await on('azure', async (server) => {
      const { database, blobs } = server.services;
      const begun = await begin(server, 20);
      await put(begun.upload, randomBytes(20));
      const direct = blobs.stores.home.direct?.uploads ?? assert.fail();
      const { id } = await database.db
        .selectFrom('blob')
        .select('id')
        .where('state', '=', 'pending')
        .executeTakeFirstOrThrow();
      // The file of a pending push stays, however old it is.
      await database.db.updateTable('pending_changeset').set({ lease_until: 0 }).execute();
      const options = {
        graceMs: 0,
        uploadLifeMs: -1000,
        completionLifeMs: -1000,
        groupLifeMs: 1e9,
        seeds: new Map<string, string>(),
        thorough: true,
      };
      await collect(database, blobs.stores, options);
      await assert.rejects(direct.finalize(id, randomUUID(), 20), /has no object/);
    });
  });

  test('in a browser are served by the server, unless the account is configured for browsers', async () => {
    const setup = setupOf('azure') as Setup;
    for (const directForPages of [false, true]) {
      const server = await bootServer(setup, { store: { ...storeConfig('azure'), directForPages } });
      try {
        const made = await makeIModel(await official(server), await server.iTwin(), { changesets: 1 });
        const token = await server.token('olivia');
        const response = await fetch(`${server.origin}/imodels/${made.id}/changesets/1`, {
          headers: { authorization: `Bearer ${token}`, origin: 'https://app.example.com' },
        });
        const { changeset } = (await response.json()) as { changeset: { _links: { download: { href: string } } } };
        assert.equal(changeset._links.download.href.startsWith(server.origin), !directForPages);
        assert.deepEqual(
          Buffer.from(await (await fetch(changeset._links.download.href)).arrayBuffer()),
          made.changesets[0]?.bytes,
        );
        const { briefcaseId } = made;
        const id = randomBytes(20).toString('hex');
        const begun = await fetch(`${server.origin}/imodels/${made.id}/changesets`, {
          method: 'POST',
          headers: {
            authorization: `Bearer ${token}`,
            origin: 'https://app.example.com',
            'content-type': 'application/json',
          },
          body: JSON.stringify({ id, parentId: made.changesets[0]?.id, briefcaseId, fileSize: 9 }),
        });
        const { upload, complete } = (
          (await begun.json()) as { changeset: { _links: { upload: { href: string }; complete: { href: string } } } }
        ).changeset._links;
        assert.equal(upload.href.startsWith(server.origin), !directForPages);
        assert.equal((await put(upload.href, randomBytes(9))).status, 201);
        assert.equal(
          (await (await server.as('olivia')).patch(complete.href, { state: 'fileUploaded', briefcaseId })).status,
          200,
        );
      } finally {
        await endServer(server);
      }
    }
  });

  test('are served by the server when its connection has no account key to sign with', async () => {
    const setup = setupOf('azure') as Setup;
    const config = storeConfig('azure') as { connectionString: string };
    const service = BlobServiceClient.fromConnectionString(config.connectionString);
    const signature = service.generateAccountSasUrl(
      new Date(Date.now() + 3_600_000),
      AccountSASPermissions.parse('rwdlacup'),
      AccountSASResourceTypes.parse('sco').toString(),
    );
    const connectionString = `BlobEndpoint=${service.url};SharedAccessSignature=${new URL(signature).search.slice(1)}`;
    const installation = await Installation.create(setup);
    await assert.rejects(
      installation.start({ store: { ...config, connectionString, direct: true } }),
      StoreUnavailableError,
    );
    const { direct, ...undecided } = { ...config, connectionString } as Record<string, unknown>;
    assert.equal(direct, true);
    const server = await installation.start({ store: undecided });
    try {
      const transfers = countTransfers(server);
      await makeIModel(await official(server), await server.iTwin(), { changesets: 1 });
      assert.equal(transfers(), 1);
    } finally {
      await endServer(server);
    }
  });
});

describe('Clients of an S3 store', { skip: skip('s3') }, () => {
  test('are redirected to it if they follow redirects, and served by the server otherwise', async () => {
    await on('s3', async (server) => {
      const { client, authorization } = await official(server);
      const api = await server.as('olivia');
      const made = await makeIModel({ client, authorization }, await server.iTwin(), { changesets: 1 });
      const bytes = made.changesets[0]?.bytes;
      const link = await downloadLink(api, made.id);
      const led = await fetch(link, { redirect: 'manual' });
      const target = led.headers.get('location') ?? '';
      assert.deepEqual([led.status, target.startsWith(process.env['OFFSHOOT_TEST_S3'] ?? '-')], [307, true]);
      const there = await fetch(target);
      assert.match(there.headers.get('content-disposition') ?? '', new RegExp(made.changesets[0]?.id ?? '-'));
      assert.deepEqual(Buffer.from(await there.arrayBuffer()), bytes);
      assert.deepEqual(
        Buffer.from(await (await fetch(link, { headers: { range: 'bytes=3-7' } })).arrayBuffer()),
        bytes?.subarray(3, 8),
      );

      // Azure's client treats a redirect as an error, and the CORS rules of the bucket may refuse a page of another origin.
      for (const headers of [{ 'x-ms-version': '2024-11-04' }, { origin: 'https://app.example.com' }])
        assert.equal((await fetch(link, { headers, redirect: 'manual' })).status, 200);
      assert.equal((await fetch(link, { method: 'HEAD', redirect: 'manual' })).status, 200);
      const azure = new AzureClientStorage(new BlockBlobClientWrapperFactory());
      assert.deepEqual(await azure.download({ url: link, transferType: 'buffer', storageType: 'azure' }), bytes);

      const work = workFolder();
      try {
        const { filePath } = await client.changesets.downloadSingle({
          authorization,
          iModelId: made.id,
          changesetIndex: 1,
          targetDirectoryPath: work.path,
        });
        assert.deepEqual(readFileSync(filePath), bytes);
      } finally {
        work.remove();
      }
    });
  });

  test('are served by the server when direct access is switched off', async () => {
    const server = await bootServer(setupOf('s3') as Setup, { store: storeConfig('s3', false) });
    try {
      const made = await makeIModel(await official(server), await server.iTwin(), { changesets: 1 });
      const [changeset] = await all(
        (await official(server)).client.changesets.getRepresentationList({
          authorization: (await official(server)).authorization,
          iModelId: made.id,
        }),
      );
      assert.equal(changeset?._links.download?.storageType, 'azure');
      assert.equal((await fetch(changeset._links.download.href, { redirect: 'manual' })).status, 200);
      assert.equal(changeset.id, changesetIdOf('', made.changesets[0]?.bytes as Buffer));
    } finally {
      await endServer(server);
    }
  });
});
