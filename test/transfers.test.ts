import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { Readable } from 'node:stream';
import { describe, test } from 'node:test';
import { CheckpointState } from '@itwin/imodels-client-management';
import type { CheckpointView } from '../apps/server/src/checkpoints/checkpoints.ts';
import { isITwinJsInstalled } from '../apps/server/src/checkpoints/itwinjs/workerProcess.ts';
import type { ConfigInput } from '../apps/server/src/config.ts';
import type { CheckpointTable } from '../apps/server/src/db/schema.ts';
import type { BlobStore } from '../apps/server/src/storage/blobStore.ts';
import { collect } from '../apps/server/src/collector/collect.ts';
import { BlobCopier, DamagedSourceError } from '../apps/server/src/transfer/blobCopier.ts';
import { verify } from '../apps/server/src/maintenance/verify.ts';
import { pushSample } from '../scripts/sample.ts';
import type { Api } from './support/api.ts';
import { all, makeIModel, official, pushMore, type MadeIModel, type Official } from './support/clients.ts';
import {
  endServer,
  Installation,
  otherStore,
  setups,
  storeConfig,
  type Setup,
  type TestServer,
} from './support/server.ts';
import { onEachStore } from './support/suite.ts';
import { until } from './support/until.ts';

const west = 'West Europe';
const withWestDataCenter = (setup: Setup, more: ConfigInput = {}): ConfigInput => ({
  dataCenters: { [west]: otherStore(setup) },
  ...more,
});

interface Operation {
  state: string;
  failureReason: string | null;
  clonedFrom: { iModelId: string; changesetId: string } | null;
  progress: { changesets: number; totalChangesets: number; bytes: number; totalBytes: number };
}

async function operationOf(api: Api, id: string): Promise<Operation> {
  return ((await api.get(`/imodels/${id}/operations/create`)).body as { createOperation: Operation }).createOperation;
}

async function ended(api: Api, id: string): Promise<Operation> {
  return until('the end of the operation', async () => {
    const operation = await operationOf(api, id);
    return operation.state === 'scheduled' ? undefined : operation;
  });
}

/** Requests a copy, whether or not it succeeds. */
async function order(api: Api, sourceId: string, body: Record<string, unknown>, what = 'clone'): Promise<string> {
  const answer = await api.post(`/imodels/${sourceId}/${what}`, { name: randomUUID(), ...body });
  assert.equal(answer.status, 202, JSON.stringify(answer.body));
  return (answer.headers.get('location') ?? '').slice(-36);
}

async function contentsOf(
  { client, authorization }: Official,
  iModelId: string,
): Promise<{ id: string; index: number; bytes: string }[]> {
  const found = await all(client.changesets.getRepresentationList({ authorization, iModelId }));
  return Promise.all(
    found.map(async ({ id, index, _links }) => {
      const response = await fetch(_links.download?.href ?? assert.fail());
      return { id, index, bytes: Buffer.from(await response.arrayBuffer()).toString('hex') };
    }),
  );
}

const pushed = ({ changesets }: MadeIModel) =>
  changesets.map(({ id, index, bytes }) => ({ id, index, bytes: bytes.toString('hex') }));
const storesOf = (server: TestServer) => {
  const { stores } = server.services.blobs;
  return { east: stores.home, west: stores.ofDataCenter(west) };
};
const objectsIn = async (store: BlobStore): Promise<number> => (await all(store.list())).length;

/** Stores that contain the files that an iModel can see. */
async function placesOf({ services }: TestServer, iModelId: string): Promise<string[]> {
  const { db } = services.database;
  const ofChangesets = await db
    .selectFrom('imodel as m')
    .innerJoin('history as h', 'h.id', 'm.history_id')
    .innerJoin('changeset as c', 'c.segment_id', 'h.segment_id')
    .innerJoin('blob as b', 'b.id', 'c.blob_id')
    .select('b.store')
    .where('m.id', '=', iModelId)
    .execute();
  const ofBaseline = await db
    .selectFrom('imodel as m')
    .innerJoin('baseline as l', 'l.id', 'm.baseline_id')
    .innerJoin('blob as b', 'b.id', 'l.blob_id')
    .select('b.store')
    .where('m.id', '=', iModelId)
    .execute();
  return [...new Set([...ofChangesets, ...ofBaseline].map(({ store }) => store))];
}

async function collectAll({ services: { database, blobs } }: TestServer): Promise<void> {
  const seeds = await database.db.selectFrom('baseline').select('id').where('id', 'like', 'seed-%').execute();
  await collect(database, blobs.stores, {
    graceMs: -1,
    uploadLifeMs: 3_600_000,
    seeds: new Map(seeds.map(({ id }, n) => [String(n), id])),
    groupLifeMs: 3_600_000,
    thorough: true,
  });
}

onEachStore('An iTwin in another data center', withWestDataCenter, (context) => {
  const farITwin = (): Promise<string> => context.server.iTwin('olivia', undefined, west);

  test('keeps its files in the store of that data center, and reports its location', async () => {
    const far = await farITwin();
    const made = await makeIModel(context.olivia, far, { changesets: 3 });
    const stores = storesOf(context.server);
    assert.deepEqual(await placesOf(context.server, made.id), [stores.west.id]);
    assert.notEqual(stores.west.id, stores.east.id);
    const { body } = await context.api.get(`/imodels/${made.id}`);
    assert.equal((body as { iModel: { dataCenterLocation: string } }).iModel.dataCenterLocation, west);
    assert.deepEqual(await contentsOf(context.olivia, made.id), pushed(made));
  });

  test('gets a complete clone through the official client, independent of its source and its deletion', async () => {
    const far = await farITwin();
    const source = await makeIModel(context.olivia, context.iTwinId, { changesets: 7 });
    const { client, authorization } = context.olivia;
    const clone = await client.iModels.clone({
      authorization,
      iModelId: source.id,
      iModelProperties: { iTwinId: far },
    });
    assert.equal(clone.state, 'initialized');
    const operation = await operationOf(context.api, clone.id);
    assert.deepEqual([operation.state, operation.failureReason], ['successful', null]);
    assert.deepEqual(operation.clonedFrom, { iModelId: source.id, changesetId: source.changesets.at(-1)?.id });
    const { changesets, totalChangesets, bytes, totalBytes } = operation.progress;
    assert.deepEqual([changesets, totalChangesets, bytes], [7, 7, totalBytes]);
    assert.ok(totalBytes > source.changesets.reduce((sum, { bytes: file }) => sum + file.length, 0));
    assert.deepEqual(await placesOf(context.server, clone.id), [storesOf(context.server).west.id]);

    await client.iModels.delete({ authorization, iModelId: source.id });
    await collectAll(context.server);
    assert.deepEqual(await contentsOf(context.olivia, clone.id), pushed(source));
    const goesOn: MadeIModel = { ...source, id: clone.id, briefcaseId: 0, changesets: [...source.changesets] };
    await pushMore(context.olivia, goesOn, 2);
    assert.deepEqual(await contentsOf(context.olivia, clone.id), pushed(goesOn));
    assert.deepEqual(await placesOf(context.server, clone.id), [storesOf(context.server).west.id]);
    const { database, blobs } = context.server.services;
    assert.deepEqual((await verify(database.db, blobs.stores, true)).faults, []);
  });

  test('gets the content of the source as of the request, up to the chosen changeset', async () => {
    const far = await farITwin();
    const source = await makeIModel(context.olivia, context.iTwinId, { changesets: 5 });
    const three = await order(context.api, source.id, { iTwinId: far, changesetIndex: 3 });
    const none = await order(context.api, source.id, { iTwinId: far, changesetIndex: 0 });
    await pushMore(context.olivia, source, 1);
    for (const id of [three, none]) assert.equal((await ended(context.api, id)).state, 'successful');
    assert.deepEqual(await contentsOf(context.olivia, three), pushed(source).slice(0, 3));
    assert.deepEqual(await contentsOf(context.olivia, none), []);
    assert.deepEqual(await placesOf(context.server, none), [storesOf(context.server).west.id]);
  });

  test('gets a second clone, and clones back, by copying only missing files', async () => {
    const far = await farITwin();
    const source = await makeIModel(context.olivia, context.iTwinId, { changesets: 6 });
    const stores = storesOf(context.server);
    const first = await order(context.api, source.id, { iTwinId: far });
    await ended(context.api, first);
    const before = { east: await objectsIn(stores.east), west: await objectsIn(stores.west) };
    const again = await order(context.api, source.id, { iTwinId: far });
    const back = await order(context.api, first, { iTwinId: context.iTwinId });
    for (const id of [again, back]) assert.equal((await ended(context.api, id)).state, 'successful');
    assert.deepEqual({ east: await objectsIn(stores.east), west: await objectsIn(stores.west) }, before);

    const grown: MadeIModel = { ...source, id: first, briefcaseId: 0, changesets: [...source.changesets] };
    await pushMore(context.olivia, grown, 1);
    const backAgain = await order(context.api, first, { iTwinId: context.iTwinId });
    assert.equal((await ended(context.api, backAgain)).state, 'successful');
    assert.equal(await objectsIn(stores.east), before.east + 1);
    for (const id of [again, back]) assert.deepEqual(await contentsOf(context.olivia, id), pushed(source));
    assert.deepEqual(await contentsOf(context.olivia, backAgain), pushed(grown));
    assert.deepEqual(await placesOf(context.server, back), [stores.east.id]);
  });

  test('gets forks with history and iModels from templates too', async () => {
    const far = await farITwin();
    const source = await makeIModel(context.olivia, context.iTwinId, { changesets: 3 });
    const fork = await order(context.api, source.id, { iTwinId: far, preserveHistory: true }, 'fork');
    assert.equal((await ended(context.api, fork)).state, 'successful');
    assert.deepEqual(await contentsOf(context.olivia, fork), pushed(source));
    const created = await context.api.post('/imodels', {
      iTwinId: far,
      name: randomUUID(),
      template: { iModelId: source.id },
    });
    assert.equal(created.status, 201, JSON.stringify(created.body));
    const { id } = (created.body as { iModel: { id: string } }).iModel;
    assert.equal((await ended(context.api, id)).state, 'successful');
    for (const made of [fork, id])
      assert.deepEqual(await placesOf(context.server, made), [storesOf(context.server).west.id]);
  });

  test('reports why a clone failed when a file of the source is missing or damaged', async () => {
    const far = await farITwin();
    const { db } = context.server.services.database;
    const { east } = storesOf(context.server);
    for (const [index, how] of [
      [2, 'missing'],
      [3, 'damaged'],
    ] as const) {
      const source = await makeIModel(context.olivia, context.iTwinId, { changesets: 4 });
      const { key, size } = await db
        .selectFrom('changeset as c')
        .innerJoin('blob as b', 'b.id', 'c.blob_id')
        .select(['b.key', 'b.size'])
        .where('c.id', '=', source.changesets[index - 1]?.id ?? '')
        .executeTakeFirstOrThrow();
      await east.delete(key ?? '');
      if (how === 'damaged') await east.put(key ?? '', Readable.from([randomBytes(size)]), size);
      const clone = await order(context.api, source.id, { iTwinId: far });
      const operation = await ended(context.api, clone);
      assert.deepEqual(
        [operation.state, operation.failureReason],
        ['failed', `The file of changeset ${index} is ${how} in the store that it is copied from.`],
      );
      const { body } = await context.api.get(`/imodels/${clone}`);
      assert.equal((body as { iModel: { state: string } }).iModel.state, 'notInitialized');
      // The name is free, and nothing of the source is left in it.
      const { name } = (body as { iModel: { name: string } }).iModel;
      assert.equal((await context.api.post('/imodels', { iTwinId: far, name })).status, 201);
      const left = await db
        .selectFrom('imodel')
        .select(['history_id', 'head_index', 'baseline_id'])
        .where('id', '=', clone)
        .executeTakeFirstOrThrow();
      assert.deepEqual([left.history_id, left.head_index, left.baseline_id.startsWith('seed-')], [null, 0, true]);
      assert.deepEqual(
        await db.selectFrom('transfer').select('imodel_id').where('imodel_id', '=', clone).execute(),
        [],
      );
      assert.deepEqual(await db.selectFrom('job').select('id').where('subject_id', '=', clone).execute(), []);
      assert.equal((await context.api.delete(`/imodels/${clone}`)).status, 204);
      assert.equal((await context.api.delete(`/imodels/${source.id}`)).status, 204);
    }
    // The copies are deleted with the copied files, the damaged files with their source.
    await collectAll(context.server);
    const { database, blobs } = context.server.services;
    assert.deepEqual((await verify(database.db, blobs.stores, true)).faults, []);
  });

  test('cannot be in an unknown data center', async () => {
    const { status, body } = await context.api.post('/itwins', {
      displayName: randomUUID(),
      class: 'Thing',
      subClass: 'Asset',
      dataCenterLocation: 'constructor',
    });
    assert.deepEqual([status, (body as { error: { details: unknown[] } }).error.details.length], [422, 1]);
  });
});

for (const setup of setups)
  describe(`A copy into another data center on ${setup.engine} and ${setup.store}`, () => {
    /** A test on an installation; every server that it starts is closed afterwards. */
    async function onInstallation(
      work: (start: (input?: ConfigInput) => Promise<TestServer>) => Promise<void>,
    ): Promise<void> {
      const installation = await Installation.create(setup);
      const other = withWestDataCenter(setup);
      let last: TestServer | undefined;
      try {
        await work(async (input = {}) => (last = await installation.start({ ...other, ...input })));
      } finally {
        await endServer(last);
      }
    }
    const idle: ConfigInput = { transfers: { slots: 0 } };
    /** Slow enough to be interrupted: changesets of about 300 bytes, a seed that the store has already. */
    const slow: ConfigInput = { transfers: { bytesPerSecond: 1500, parallelFiles: 1 }, shutdownSeconds: 0 };

    test('resumes after a restart where it stopped', async () => {
      await onInstallation(async (start) => {
        let server = await start(slow);
        const olivia = await official(server);
        const source = await makeIModel(olivia, await server.iTwin(), { changesets: 20 });
        const far = await server.iTwin('olivia', undefined, west);
        const empty = await objectsIn(storesOf(server).west);
        const api = await server.as('olivia');
        const clone = await order(api, source.id, { iTwinId: far });
        await until('some changesets', async () =>
          (await operationOf(api, clone)).progress.changesets >= 3 ? true : undefined,
        );
        // Rule of this server: an iModel reveals nothing until it is initialized.
        assert.equal((await api.get(`/imodels/${clone}/changesets`)).status, 409);
        await server.close();
        server = await start();
        const operation = await ended(await server.as('olivia'), clone);
        assert.deepEqual([operation.state, operation.progress.changesets], ['successful', 20]);
        assert.deepEqual(await contentsOf(await official(server), clone), pushed(source));
        assert.equal((await objectsIn(storesOf(server).west)) - empty, 20);
      });
    });

    test('ends when the target is deleted, and leaves nothing behind', async () => {
      await onInstallation(async (start) => {
        const server = await start(slow);
        const olivia = await official(server);
        const source = await makeIModel(olivia, await server.iTwin(), { changesets: 20 });
        const far = await server.iTwin('olivia', undefined, west);
        const api = await server.as('olivia');
        const { db } = server.services.database;
        const clone = await order(api, source.id, { iTwinId: far });
        await until('some changesets', async () =>
          (await operationOf(api, clone)).progress.changesets >= 2 ? true : undefined,
        );
        assert.equal((await api.delete(`/imodels/${clone}`)).status, 204);
        await until('the end of the job', async () =>
          (await db.selectFrom('job').select('id').where('subject_id', '=', clone).executeTakeFirst()) === undefined
            ? true
            : undefined,
        );
        await collectAll(server);
        // Everything except the seed of the data center.
        const left = await db.selectFrom('blob').select('id').where('store', '=', storesOf(server).west.id).execute();
        assert.equal(left.length, 1);
        assert.deepEqual(await db.selectFrom('transfer').selectAll().execute(), []);
        assert.deepEqual(await contentsOf(olivia, source.id), pushed(source));
      });
    });

    test('whose target is deleted leaves no copied file that was not recorded yet', async () => {
      await onInstallation(async (start) => {
        const server = await start();
        const source = await makeIModel(await official(server), await server.iTwin(), { changesets: 3 });
        const far = await server.iTwin('olivia', undefined, west);
        const { west: store } = storesOf(server);
        const empty = await objectsIn(store);
        let release!: () => void;
        const gate = new Promise<void>((resolve) => (release = resolve));
        for (const name of ['put', 'copyFrom'] as const) {
          const real = store[name]?.bind(store) as ((...given: unknown[]) => Promise<unknown>) | undefined;
          if (real === undefined) continue;
          const held = async (...given: unknown[]) => {
            const stored = await real(...given);
            // A store that cannot copy the file leaves it to `put`.
            if (stored !== undefined) await gate;
            return stored;
          };
          Object.assign(store, { [name]: held });
        }
        const api = await server.as('olivia');
        const clone = await order(api, source.id, { iTwinId: far });
        await until('files that came over', async () => ((await objectsIn(store)) - empty === 3 ? true : undefined));
        assert.equal((await api.delete(`/imodels/${clone}`)).status, 204);
        const { db } = server.services.database;
        await until('the end of the job', async () =>
          (await db.selectFrom('job').select('id').where('subject_id', '=', clone).executeTakeFirst()) === undefined
            ? true
            : undefined,
        );
        release();
        await until('the end of the files', async () => ((await objectsIn(store)) === empty ? true : undefined));
        for (const name of ['put', 'copyFrom']) Reflect.deleteProperty(store, name);
      });
    });

    test('that no server runs is reported by the readiness endpoint until one does', async () => {
      await onInstallation(async (start) => {
        let server = await start(idle);
        const source = await makeIModel(await official(server), await server.iTwin(), { changesets: 1 });
        const clone = await order(await server.as('olivia'), source.id, {
          iTwinId: await server.iTwin('olivia', undefined, west),
        });
        const { db, engine } = server.services.database;
        // Where other servers may exist they have ten minutes.
        if (engine === 'postgres')
          await db
            .updateTable('job')
            .set({ run_at: Date.now() - 700_000 })
            .where('subject_id', '=', clone)
            .execute();
        const ready = async (): Promise<unknown> => (await fetch(`${server.origin}/health/ready`)).json();
        assert.match(JSON.stringify(await ready()), /"status":"ok".*"warnings":\["Copies into other data centers wait/);
        await server.close();
        server = await start();
        await ended(await server.as('olivia'), clone);
        assert.doesNotMatch(JSON.stringify(await ready()), /warnings/);
      });
    });

    test('succeeds although the source is deleted before its job runs', async () => {
      await onInstallation(async (start) => {
        let server = await start(idle);
        const source = await makeIModel(await official(server), await server.iTwin(), { changesets: 4 });
        const api = await server.as('olivia');
        const clone = await order(api, source.id, { iTwinId: await server.iTwin('olivia', undefined, west) });
        assert.equal((await api.delete(`/imodels/${source.id}`)).status, 204);
        await collectAll(server);
        await server.close();
        server = await start();
        assert.equal((await ended(await server.as('olivia'), clone)).state, 'successful');
        assert.deepEqual(await contentsOf(await official(server), clone), pushed(source));
      });
    });

    test('uses the permissions at the time its job begins', async () => {
      await onInstallation(async (start) => {
        let server = await start(idle);
        const iTwinId = await server.iTwin();
        const far = await server.iTwin('olivia', undefined, west);
        const roles = [
          await server.grant(iTwinId, 'max', ['imodels_manage']),
          await server.grant(far, 'max', ['imodels_manage']),
        ];
        const source = await makeIModel(await official(server), iTwinId, { changesets: 2 });
        const max = await server.as('max');
        const kept = await order(max, source.id, { iTwinId: far });
        await server.close();
        server = await start();
        assert.equal((await ended(await server.as('olivia'), kept)).state, 'successful');

        for (const [place, role] of [
          [iTwinId, roles[0]],
          [far, roles[1]],
        ] as const) {
          await server.close();
          server = await start(idle);
          const asMax = await server.as('max');
          const asOlivia = await server.as('olivia');
          const clone = await order(asMax, source.id, { iTwinId: far });
          assert.equal(
            (await asOlivia.patch(`/accesscontrol/itwins/${place}/roles/${role}`, { permissions: ['imodels_read'] }))
              .status,
            200,
          );
          await server.close();
          server = await start();
          const operation = await ended(await server.as('olivia'), clone);
          assert.deepEqual(
            [operation.state, operation.failureReason],
            ['failed', 'The requester no longer has the permissions that this iModel needs.'],
          );
          const restored = await (
            await server.as('olivia')
          ).patch(`/accesscontrol/itwins/${place}/roles/${role}`, { permissions: ['imodels_manage'] });
          assert.equal(restored.status, 200);
        }
      });
    });

    test('fails with the reason when its attempts make no progress', async () => {
      await onInstallation(async (start) => {
        const server = await start({ transfers: { attemptsWithoutProgress: 2, firstRetrySeconds: 0 } });
        const source = await makeIModel(await official(server), await server.iTwin(), { changesets: 2 });
        const api = await server.as('olivia');
        const { west: store } = storesOf(server);
        const away = () => Promise.reject(new Error('the store is away'));
        Object.assign(store, { put: away, copyFrom: away });
        const clone = await order(api, source.id, { iTwinId: await server.iTwin('olivia', undefined, west) });
        const operation = await ended(api, clone);
        for (const name of ['put', 'copyFrom']) Reflect.deleteProperty(store, name);
        assert.equal(operation.state, 'failed');
        // For an error of the store, users learn only that the log has the details.
        assert.match(
          operation.failureReason ?? '',
          /^Nothing was copied in 2 attempts\. The last one: The server met an unexpected error\. Its log has more under the reference [0-9a-f-]{36}\.$/,
        );
      });
    });

    /** Makes a store refuse writes once a condition holds. */
    function refuseWritesOnce(store: BlobStore, holds: () => Promise<boolean>): void {
      for (const name of ['put', 'copyFrom'] as const) {
        const real = store[name]?.bind(store) as ((...given: unknown[]) => Promise<unknown>) | undefined;
        if (real !== undefined)
          Object.assign(store, {
            [name]: async (...given: unknown[]) =>
              (await holds()) ? Promise.reject(new Error('the store is away')) : real(...given),
          });
      }
    }
    const checkpointOf = async (api: Api, id: string, index: number) =>
      (
        (await api.get(`/imodels/${id}/changesets/${index}/checkpoint`)).body as {
          checkpoint: { state: string; failureReason: string | null };
        }
      ).checkpoint;
    const skip = isITwinJsInstalled() ? false : 'iTwin.js is not installed';

    test(
      'waits for a checkpoint where its source has none yet and the installation makes them',
      { skip, timeout: 120_000 },
      async (t) => {
        await onInstallation(async (start) => {
          // An uploaded baseline, of which no checkpoint is made for now.
          let server = await start();
          const iModelId = await pushSample(await official(server), await server.iTwin(), randomUUID());
          await server.close();
          server = await start({ checkpoints: { generate: 'elsewhere' } });
          let api = await server.as('olivia');
          const clone = await order(api, iModelId, { iTwinId: await server.iTwin('olivia', undefined, west) });
          await until('all changesets', async () =>
            (await operationOf(api, clone)).progress.changesets > 0 ? true : undefined,
          );
          const { db } = server.services.database;
          await until('the wait', () =>
            db
              .selectFrom('job')
              .select('id')
              .where('subject_id', '=', clone)
              .where('run_at', '>', Date.now())
              .executeTakeFirst(),
          );
          assert.equal(
            ((await api.get(`/imodels/${clone}`)).body as { iModel: { state: string } }).iModel.state,
            'notInitialized',
          );
          await server.close();
          server = await start({ checkpoints: { generate: 'auto' } });
          // The copy has just read that there is no checkpoint when the checkpoint is finished.
          const { checkpoints } = server.services;
          t.mock.method(
            checkpoints,
            'usable',
            async (view: CheckpointView): Promise<CheckpointTable[]> => {
              await until(
                'the checkpoint',
                async () => (await checkpoints.find(view, 0))?.state === 'successful' || undefined,
              );
              return [];
            },
            { times: 1 },
          );
          api = await server.as('olivia');
          await until(
            'the initialized clone',
            async () =>
              ((await api.get(`/imodels/${clone}`)).body as { iModel: { state: string } }).iModel.state ===
              'initialized'
                ? true
                : undefined,
            60_000,
          );
          assert.equal((await checkpointOf(api, clone, 0)).state, 'successful');
        });
      },
    );

    test(
      'reports that a checkpoint is being copied, and the reason when it could not be',
      { skip, timeout: 120_000 },
      async () => {
        await onInstallation(async (start) => {
          let server = await start({ checkpoints: { generate: 'auto', delaySeconds: 0 } });
          const olivia = await official(server);
          const { client, authorization } = olivia;
          const iModelId = await pushSample(olivia, await server.iTwin(), randomUUID());
          await client.namedVersions.create({
            authorization,
            iModelId,
            namedVersionProperties: {
              name: 'v',
              changesetId: (await client.changesets.getSingle({ authorization, iModelId, changesetIndex: 2 })).id,
            },
          });
          let api = await server.as('olivia');
          await until(
            'the checkpoint',
            async () => ((await checkpointOf(api, iModelId, 2)).state === 'successful' ? true : undefined),
            60_000,
          );
          const far = await server.iTwin('olivia', undefined, west);
          await server.close();

          // No checkpoints are made here: those that are not copied are missing.
          server = await start({ transfers: { attemptsWithoutProgress: 2, firstRetrySeconds: 0.5 } });
          api = await server.as('olivia');
          const { db } = server.services.database;
          let clone = '';
          refuseWritesOnce(
            storesOf(server).west,
            async () =>
              (await db.selectFrom('imodel').select('state').where('id', '=', clone).executeTakeFirst())?.state ===
              'initialized',
          );
          clone = await order(api, iModelId, { iTwinId: far });
          const states = new Set<string>();
          await until('the end of the operation', async () => {
            const { status, body } = await api.get(`/imodels/${clone}/changesets/2/checkpoint`);
            if (status === 200) states.add((body as { checkpoint: { state: string } }).checkpoint.state);
            return (await operationOf(api, clone)).state === 'scheduled' ? undefined : true;
          });
          assert.deepEqual(
            [(await operationOf(api, clone)).state, (await checkpointOf(api, clone, 0)).state],
            ['successful', 'successful'],
          );
          const { state, failureReason } = await checkpointOf(api, clone, 2);
          assert.deepEqual(
            [state, failureReason],
            ['failed', 'The checkpoint could not be copied into this data center.'],
          );
          assert.ok(states.has('scheduled') && !states.has('notGenerated'), [...states].join());
          assert.deepEqual((await verify(db, server.services.blobs.stores, true)).faults, []);
        });
      },
    );

    test('includes checkpoints, which open the clone at once', { skip, timeout: 120_000 }, async () => {
      await onInstallation(async (start) => {
        let server = await start({ checkpoints: { generate: 'auto', delaySeconds: 0 }, ...idle });
        const olivia = await official(server);
        const { client, authorization } = olivia;
        const iModelId = await pushSample(olivia, await server.iTwin(), randomUUID());
        const last = (await all(client.changesets.getMinimalList({ authorization, iModelId }))).at(-1);
        await client.namedVersions.create({
          authorization,
          iModelId,
          namedVersionProperties: { name: 'v', changesetId: last?.id ?? '' },
        });
        const ready = async (of: string, index: number) => {
          const checkpoint = await client.checkpoints.getSingle({ authorization, iModelId: of, changesetIndex: index });
          return checkpoint.state === CheckpointState.Successful ? checkpoint : undefined;
        };
        await until('the checkpoint of the source', () => ready(iModelId, last?.index ?? 0), 60_000);
        const far = await server.iTwin('olivia', undefined, west);
        const api = await server.as('olivia');
        const clone = await order(api, iModelId, { iTwinId: far });
        // A new baseline is made in the target data center, and needs no copy.
        const squashed = await order(api, iModelId, { iTwinId: far }, 'fork');
        const fork = await until(
          'the fork',
          async () =>
            (await operationOf(api, squashed)).state === 'scheduled' ? undefined : operationOf(api, squashed),
          60_000,
        );
        assert.deepEqual(
          [fork.state, fork.progress.totalBytes, await placesOf(server, squashed)],
          ['successful', 0, [storesOf(server).west.id]],
        );
        await server.close();

        // No checkpoints are made here: those of the clone were copied.
        server = await start();
        const later = await official(server);
        assert.equal((await ended(await server.as('olivia'), clone)).state, 'successful');
        const { services } = server;
        for (const index of [0, last?.index ?? 0]) {
          const checkpoint = await later.client.checkpoints.getSingle({
            authorization: later.authorization,
            iModelId: clone,
            changesetIndex: index,
          });
          assert.equal(checkpoint.state, CheckpointState.Successful);
        }
        const places = await services.database.db
          .selectFrom('imodel as m')
          .innerJoin('history as h', 'h.id', 'm.history_id')
          .innerJoin('checkpoint as c', (on) =>
            on.on((eb) =>
              eb.or([
                eb('c.segment_id', '=', eb.ref('h.segment_id')),
                eb('c.baseline_id', '=', eb.ref('m.baseline_id')),
              ]),
            ),
          )
          .innerJoin('model_file_block as f', 'f.file_id', 'c.file_id')
          .innerJoin('block as k', 'k.id', 'f.block_id')
          .select(['k.store', 'c.id'])
          .where('m.id', '=', clone)
          .execute();
        assert.deepEqual([...new Set(places.map(({ store }) => store))], [storesOf(server).west.id]);
        assert.equal(new Set(places.map(({ id }) => id)).size, 2);
        assert.deepEqual((await verify(services.database.db, services.blobs.stores, true)).faults, []);
      });
    });
  });

describe('The blob copier', () => {
  /** Stores in memory would count as different kinds; these are files. */
  async function twoStores(work: (server: TestServer) => Promise<void>): Promise<void> {
    const setup = setups[0] as Setup;
    const installation = await Installation.create(setup);
    const server = await installation.start(withWestDataCenter(setup));
    try {
      await work(server);
    } finally {
      await endServer(server);
    }
  }

  test('keeps its limit of bytes per second across all files', async () => {
    await twoStores(async (server) => {
      const { blobs } = server.services;
      const stores = storesOf(server);
      const copier = new BlobCopier(blobs, 40_000);
      const bytes = randomBytes(30_000);
      const from = { store: stores.east.id, key: randomUUID() };
      const { sha256 } = await stores.east.put(from.key, Readable.from([bytes]), bytes.length);
      const began = performance.now();
      let passed = 0;
      const copy = () =>
        copier.copy(
          from,
          undefined,
          { what: 'a file', size: bytes.length, sha256 },
          stores.west,
          randomUUID(),
          {},
          (count) => (passed += count),
        );
      await Promise.all([copy(), copy(), copy(), copy()]);
      // 120,000 bytes: 40,000 in each of three seconds, of which the first starts at once.
      assert.ok(performance.now() - began >= 1900);
      assert.equal(passed, 120_000);
    });
  });

  for (const setup of setups.filter(({ store }) => store !== 'files')) {
    /** Both stores on one service, and an iModel in the first. */
    async function onOneService(
      changesets: number,
      work: (server: TestServer, source: MadeIModel) => Promise<void>,
    ): Promise<void> {
      const installation = await Installation.create(setup);
      const server = await installation.start({
        dataCenters: { [west]: { ...storeConfig(setup.store), name: 'west' } },
      });
      try {
        await work(server, await makeIModel(await official(server), await server.iTwin(), { changesets }));
      } finally {
        await endServer(server);
      }
    }
    /** Clones into the other data center, and waits. */
    async function cloneIntoOtherDataCenter(
      server: TestServer,
      { id }: MadeIModel,
      body: object = {},
    ): Promise<string> {
      const api = await server.as('olivia');
      const clone = await order(api, id, { iTwinId: await server.iTwin('olivia', undefined, west), ...body });
      assert.equal((await ended(api, clone)).state, 'successful');
      return clone;
    }

    test(`leaves the copy to the storage service where it holds both stores: ${setup.store}`, async () => {
      await onOneService(3, async (server, source) => {
        const stores = storesOf(server);
        Object.assign(stores.west, { put: () => Promise.reject(new Error('bytes came through the server')) });
        const clone = await cloneIntoOtherDataCenter(server, source);
        Reflect.deleteProperty(stores.west, 'put');
        assert.deepEqual(await contentsOf(await official(server), clone), pushed(source));
        assert.deepEqual(await placesOf(server, clone), [stores.west.id]);
        // Damage is still detected.
        const found = await server.services.database.db
          .selectFrom('blob')
          .select('key')
          .where('store', '=', stores.east.id)
          .where('id', 'not like', 'seed-%')
          .executeTakeFirstOrThrow();
        const [key, size] = [found.key as string, 300];
        await stores.east.delete(key);
        await stores.east.put(key, Readable.from([randomBytes(size)]), size);
        const copier = new BlobCopier(server.services.blobs, 0);
        const copy = copier.copy(
          { store: stores.east.id, key },
          undefined,
          { what: 'changeset 1', size, sha256: 'f'.repeat(64) },
          stores.west,
          randomUUID(),
          {},
          () => undefined,
        );
        await assert.rejects(copy, new DamagedSourceError('changeset 1', 'damaged'));
      });
    });

    test(`copies files through the server where the storage service refuses to copy them: ${setup.store}`, async () => {
      await onOneService(8, async (server, source) => {
        const stores = storesOf(server);
        let asked = 0;
        Object.assign(stores.west, { copyFrom: () => Promise.reject(new Error(`refused ${++asked}`)) });
        const clone = await cloneIntoOtherDataCenter(server, source);
        assert.deepEqual(await contentsOf(await official(server), clone), pushed(source));
        assert.deepEqual(await placesOf(server, clone), [stores.west.id]);
        const later = asked;
        await cloneIntoOtherDataCenter(server, source, { changesetIndex: 0 });
        assert.ok(asked === later && later <= 16, `asked ${asked} times`);
      });
    });
  }

  test('never accepts a file other than the expected one', async () => {
    await twoStores(async (server) => {
      const stores = storesOf(server);
      const copier = new BlobCopier(server.services.blobs, 0);
      const key = randomUUID();
      await stores.east.put(key, Readable.from([Buffer.from('something')]), 9);
      const before = await objectsIn(stores.west);
      const copy = (from: string, size: number, sha256: string) =>
        copier.copy(
          { store: stores.east.id, key: from },
          undefined,
          { what: 'changeset 1', size, sha256 },
          stores.west,
          randomUUID(),
          {},
          () => undefined,
        );
      await assert.rejects(copy(key, 9, 'f'.repeat(64)), new DamagedSourceError('changeset 1', 'damaged'));
      await assert.rejects(copy(key, 8, 'f'.repeat(64)), new DamagedSourceError('changeset 1', 'damaged'));
      await assert.rejects(copy(randomUUID(), 9, 'f'.repeat(64)), new DamagedSourceError('changeset 1', 'missing'));
      assert.equal(await objectsIn(stores.west), before);
    });
  });
});
