import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { Readable } from 'node:stream';
import { describe, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import type { ConfigInput } from '../apps/server/src/config.ts';
import { EmbeddedIssuer } from '../apps/server/src/access/embeddedIssuer.ts';
import { verify } from '../apps/server/src/maintenance/verify.ts';
import { Api } from './support/api.ts';
import { ServerProcess } from './support/serverProcess.ts';
import { all, makeIModel, official } from './support/clients.ts';
import { freePort } from './support/freePort.ts';
import { endServer, Installation, otherStore, people, setups, type TestServer } from './support/server.ts';

const west = 'West Europe';
const files = 400;
const withinMs = 120_000;

for (const setup of setups) {
  const kills = setup.engine === 'sqlite' ? 6 : 3;
  describe(`A server that is killed while it copies into another data center, on ${setup.engine} and ${setup.store}`, () => {
    test(
      `${kills} times at random, completes the clone correctly, and copies no file twice`,
      { timeout: 200_000 },
      async () => {
        const installation = await Installation.create(setup);
        // Not into s3rver: when its client dies it leaves an incomplete object, which it then cannot list.
        const far: ConfigInput['store'] =
          setup.store === 'azure' ? { type: 'files', folder: 'west' } : otherStore(setup);
        const input = { dataCenters: { [west]: far }, jobs: { leaseSeconds: 1 } };
        let here: TestServer | undefined;
        // Slow enough for the kills to interrupt it: 400 files of 1 kB.
        const child = new ServerProcess(
          installation.config({ ...input, port: await freePort(), transfers: { bytesPerSecond: 200_000 } }),
        );
        try {
          here = await installation.start(input);
          const source = await makeIModel(await official(here), await here.iTwin(), { changesets: 1 });
          const farITwin = await here.iTwin('olivia', undefined, west);
          await grow(here, source.id);
          const seeds = (await all(here.services.blobs.stores.ofDataCenter(west).list())).length;
          await here.close();
          here = undefined;

          await child.start();
          const token = await (
            await EmbeddedIssuer.open(installation.dataDir)
          ).mint(people.olivia, { applicationId: 'suite', scope: 'itwin-platform', lifeSeconds: 3600 });
          const api = (): Api => new Api(child.origin, token);
          const accepted = await api().post(`/imodels/${source.id}/clone`, { iTwinId: farITwin, name: randomUUID() });
          assert.equal(accepted.status, 202);
          const cloneId = (accepted.headers.get('location') ?? '').slice(-36);
          const points = Array.from({ length: kills }, () => Math.floor(Math.random() * files * 0.9)).sort(
            (a, b) => a - b,
          );
          for (const until = Date.now() + withinMs; ; await pause(10)) {
            const { createOperation } = (await api().get(`/imodels/${cloneId}/operations/create`)).body as {
              createOperation: { state: string; failureReason: string | null; progress: { changesets: number } };
            };
            const { state, failureReason, progress } = createOperation;
            if (state === 'successful') break;
            assert.ok(
              state === 'scheduled' && Date.now() < until,
              `${state} at ${progress.changesets}: ${failureReason}`,
            );
            if (progress.changesets < (points[0] ?? Infinity)) continue;
            points.shift();
            await child.end();
            await child.start();
          }
          assert.deepEqual(points, []);
          await child.end('SIGTERM');

          here = await installation.start(input);
          const { database, blobs } = here.services;
          const contents = (of: string) =>
            database.db
              .selectFrom('imodel as m')
              .innerJoin('history as h', 'h.id', 'm.history_id')
              .innerJoin('changeset as c', 'c.segment_id', 'h.segment_id')
              .innerJoin('blob as b', 'b.id', 'c.blob_id')
              .select(['c.index', 'c.id', 'c.parent_id', 'b.sha256', 'b.size'])
              .where('m.id', '=', of)
              .orderBy('c.index')
              .execute();
          const copied = await contents(cloneId);
          assert.equal(copied.length, files);
          assert.deepEqual(copied, await contents(source.id));
          assert.deepEqual((await verify(database.db, blobs.stores, true)).faults, []);
          assert.equal((await all(blobs.stores.ofDataCenter(west).list())).length - seeds, files);
        } finally {
          await child.end();
          if (here === undefined) installation.remove();
          else await endServer(here);
        }
      },
    );
  });
}

/** Fills an iModel with up to `files` changesets, as pushes would. */
async function grow({ services: { database, blobs } }: TestServer, iModelId: string): Promise<void> {
  const { db } = database;
  const imodel = await db.selectFrom('imodel').selectAll().where('id', '=', iModelId).executeTakeFirstOrThrow();
  const range = await db
    .selectFrom('history')
    .selectAll()
    .where('id', '=', imodel.history_id)
    .executeTakeFirstOrThrow();
  const first = await db
    .selectFrom('changeset')
    .selectAll()
    .where('segment_id', '=', range.segment_id)
    .executeTakeFirstOrThrow();
  const store = blobs.stores.home;
  for (let index = 2; index <= files; index++) {
    const [key, bytes] = [randomUUID(), randomBytes(1000)];
    const { size, sha256 } = await store.put(key, Readable.from([bytes]), bytes.length);
    const blobId = randomUUID();
    await db
      .insertInto('blob')
      .values({
        id: blobId,
        store: store.id,
        key,
        size,
        sha256,
        state: 'stored',
        created_at: Date.now(),
        released_at: null,
      })
      .execute();
    await db
      .insertInto('changeset')
      .values({
        ...first,
        index,
        id: idAt(index),
        parent_id: index === 2 ? first.id : idAt(index - 1),
        blob_id: blobId,
        file_size: size,
      })
      .execute();
  }
  await db
    .updateTable('imodel')
    .set({ head_index: files, head_changeset_id: idAt(files) })
    .where('id', '=', iModelId)
    .execute();
}

const idAt = (index: number): string => index.toString(16).padStart(40, '0');
