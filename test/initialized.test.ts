import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { describe, test } from 'node:test';
import { sql } from 'kysely';
import { needsInitialized, type Route } from '../apps/server/src/api/route.ts';
import { routes } from '../apps/server/src/api/routes.ts';
import { failedCreationsMigration } from '../apps/server/src/db/migrations/0014-failed-creations.ts';
import type { Answer, Api, WireError } from './support/api.ts';
import { makeIModel, official } from './support/clients.ts';
import { endServer, Installation, otherStore, people, setups, type TestServer } from './support/server.ts';
import { onEachStore } from './support/suite.ts';
import { until } from './support/until.ts';

const west = 'West Europe';

/** The smallest PNG. */
const png = Buffer.from(
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==',
  'base64',
);

/** Routes that answer for an iModel that is not initialized, and their answers. All other routes, including new ones, must refuse. */
const open: Record<string, (state: State) => number> = {
  'get-imodel-details': () => 200,
  'get-create-imodel-operation-details': () => 200,
  // Derived iModels refer to the file of their source.
  'get-imodel-baseline-file-details': ({ derived }) => (derived ? 404 : 200),
  // Nothing was uploaded, or the upload has ended.
  'complete-imodel-baseline-file-upload': ({ derived, failed }) => (derived || failed ? 422 : 404),
  'get-imodel-users': () => 200,
  'get-imodel-user-details': () => 200,
  'get-imodel-user-permissions': () => 200,
  'get-imodel-rolepermissions': () => 200,
  'get-imodel-rolepermissions-by-role': () => 200,
  'get-imodel-userpermissions': () => 200,
  'get-imodel-thumbnail': () => 200,
  'add-imodel-to-favorites': () => 204,
  'remove-imodel-from-favorites': () => 204,
  'add-imodel-to-recents': () => 204,
  'remove-imodel-from-recents': () => 204,
  'delete-imodel': () => 204,
};

/** An iModel that is not initialized. */
interface State {
  what: string;
  id: string;
  /** Derived from another iModel. */
  derived: boolean;
  failed: boolean;
}

/** Bodies that their routes would accept. */
function bodyFor(operationId: string, iTwinId: string): unknown {
  const changeset = { id: 'a'.repeat(40), briefcaseId: 2, fileSize: 1 };
  const bodies: Record<string, unknown> = {
    'clone-imodel': { iTwinId, name: randomUUID() },
    'fork-imodel': { iTwinId, name: randomUUID() },
    'update-imodel': { name: randomUUID() },
    'create-imodel-changeset': changeset,
    'update-imodel-changeset': { state: 'fileUploaded', briefcaseId: 2 },
    'create-imodel-named-version': { name: 'too early' },
    'update-imodel-changeset-group': { state: 'completed' },
    'create-imodel-changeset-extended-data': { data: Buffer.from('{}').toString('base64') },
    'update-imodel-locks': { briefcaseId: 2, changesetId: '', lockedObjects: [] },
    'release-imodel-locks-chunk': { briefcaseId: 2, changesetId: '' },
    'create-imodel-share': {
      name: 'share',
      permission: 'imodels_read',
      expiresAt: new Date(Date.now() + 3_600_000).toISOString(),
    },
    'update-imodel-share': { expiresAt: new Date(Date.now() + 3_600_000).toISOString() },
    'replace-imodel-rolepermissions': { rolePermissions: [] },
    'update-imodel-rolepermissions': { rolePermissions: [] },
    'replace-imodel-rolepermissions-by-role': { rolePermissions: [] },
    'update-imodel-rolepermissions-by-role': { rolePermissions: [] },
    'replace-imodel-userpermissions': { userPermissions: [] },
    'update-imodel-userpermissions': { userPermissions: [] },
  };
  return bodies[operationId] ?? {};
}

function send(api: Api, route: Route, iModelId: string, iTwinId: string): Promise<Answer> {
  const named: Record<string, string> = {
    iModelId,
    userId: people.olivia.id,
    changeset: '1',
    briefcaseId: '2',
    groupId: randomUUID(),
    namedVersionId: randomUUID(),
    shareId: randomUUID(),
    roleId: randomUUID(),
    iTwinId,
    title: 'suite',
    version: '1',
    mode: '1',
    operation: 'IModelReadRpcInterface-3.7.0-getConnectionProps',
  };
  const path = route.path.replace(/:(\w+)/g, (_, name: string) => named[name] ?? assert.fail(`no sample for :${name}`));
  const queries: Record<string, string> = {
    'get-imodel-released-locks': '?afterChangesetIndex=0',
    'read-viewer': `?parameters=${Buffer.from('[]').toString('base64')}`,
  };
  const url = `${path}${queries[route.operationId] ?? ''}`;
  if (route.operationId === 'call-viewer') return api.send(route.method, url, '[]', { 'content-type': 'text/plain' });
  if (route.file !== undefined) return api.send(route.method, url, png, { 'content-type': 'image/png' });
  return api.send(route.method, url, route.body === undefined ? undefined : bodyFor(route.operationId, iTwinId));
}

const onIModels = routes.filter(({ access }) => access.on === 'imodel');

test('every route on an iModel requires that it is initialized, except for those that state the reason', () => {
  const stated = onIModels.filter(({ access }) => !needsInitialized(access)).map(({ operationId }) => operationId);
  assert.deepEqual(stated.toSorted(), Object.keys(open).toSorted());
  // The access check recognizes an iModel only in the path.
  assert.deepEqual(
    routes
      .filter(({ path, access }) => path.includes(':iModelId') && access.on !== 'imodel')
      .map(({ operationId }) => operationId),
    [],
  );
});

for (const setup of setups)
  describe(`An iModel that is not initialized on ${setup.engine} and ${setup.store}`, () => {
    test('reveals nothing of its files or its source on any route, and accepts nothing', async () => {
      const installation = await Installation.create(setup);
      let server: TestServer | undefined;
      try {
        server = await installation.start({
          dataCenters: { [west]: otherStore(setup) },
          transfers: { firstRetrySeconds: 1000 },
          checkpoints: { generate: 'elsewhere' },
        });
        const api = await server.as('olivia');
        const iTwinId = await server.iTwin();
        const states = await makeStates(server, api, iTwinId);
        for (const state of states) await check(server, api, iTwinId, state);
      } finally {
        await endServer(server);
      }
    });
  });

/** One iModel of each kind: waiting and failed; from a file, by cloning into another data center, and by a fork. */
async function makeStates(server: TestServer, api: Api, iTwinId: string): Promise<State[]> {
  const olivia = await official(server);
  const far = await server.iTwin('olivia', undefined, west);
  const source = await makeIModel(olivia, iTwinId, { changesets: 2 });
  const derive = async (what: string, target: string): Promise<string> => {
    const answer = await api.post(`/imodels/${source.id}/${what}`, { iTwinId: target, name: randomUUID() });
    assert.equal(answer.status, 202, JSON.stringify(answer.body));
    return (answer.headers.get('location') ?? '').slice(-36);
  };
  const create = async (size: number) => {
    const { iModel } = (await api.post('/imodels', { iTwinId, name: randomUUID(), baselineFile: { size } })).body as {
      iModel: { id: string; _links: Record<'upload' | 'complete', { href: string }> };
    };
    return iModel;
  };
  const operationOf = async (id: string) =>
    ((await api.get(`/imodels/${id}/operations/create`)).body as { createOperation: { state: string } }).createOperation
      .state;

  const { stores } = server.services.blobs;
  const store = stores.ofDataCenter(west);
  const remoteStore = () => Promise.reject(new Error('the store is away'));
  Object.assign(store, { put: remoteStore, copyFrom: remoteStore });
  const waiting = await derive('clone', far);
  await until(
    'the first attempt',
    async () =>
      (
        await server.services.database.db
          .selectFrom('job')
          .select('last_error')
          .where('subject_id', '=', waiting)
          .executeTakeFirst()
      )?.last_error ?? undefined,
  );
  for (const name of ['put', 'copyFrom']) Reflect.deleteProperty(store, name);

  const upload = await create(100);
  await api.put(upload._links.upload.href, Buffer.alloc(100), { 'x-ms-blob-type': 'BlockBlob' });
  await api.post(upload._links.complete.href, {});

  const { key } = await server.services.database.db
    .selectFrom('changeset as c')
    .innerJoin('blob as b', 'b.id', 'c.blob_id')
    .select('b.key')
    .where('c.id', '=', source.changesets[0]?.id ?? '')
    .executeTakeFirstOrThrow();
  await stores.home.delete(key ?? '');
  // Another iTwin: copies within one wait for each other.
  const failed = await derive('clone', await server.iTwin('olivia', undefined, west));
  await until('the failure', async () => ((await operationOf(failed)) === 'failed' ? true : undefined));
  return [
    { what: 'a waiting upload', id: (await create(100)).id, derived: false, failed: false },
    { what: 'a failed upload', id: upload.id, derived: false, failed: true },
    { what: 'a waiting clone', id: waiting, derived: true, failed: false },
    { what: 'a failed clone', id: failed, derived: true, failed: true },
    { what: 'a waiting fork', id: await derive('fork', iTwinId), derived: true, failed: false },
  ];
}

async function check(server: TestServer, api: Api, iTwinId: string, state: State): Promise<void> {
  const { what, id } = state;
  // The deletion comes last.
  for (const route of onIModels.toSorted(
    (a, b) => Number(a.operationId === 'delete-imodel') - Number(b.operationId === 'delete-imodel'),
  )) {
    if (route.operationId === 'delete-imodel') await checkLinks(server, state);
    const answer = await send(api, route, id, iTwinId);
    const summary = `${what}: ${route.operationId} answers ${answer.status} ${JSON.stringify(answer.body)}`;
    const expected = open[route.operationId]?.(state);
    if (expected === undefined) {
      assert.equal(answer.status, 409, summary);
      assert.deepEqual(
        answer.body,
        { error: { code: 'iModelNotInitialized', message: 'iModel is not initialized.' } },
        summary,
      );
    } else {
      assert.equal(answer.status, expected, summary);
      // No signed link, whatever else the answer contains.
      assert.doesNotMatch(JSON.stringify(answer.body ?? ''), /[?&]sig=/, summary);
    }
    if (route.operationId === 'get-imodel-baseline-file-details' && state.derived)
      assert.equal((answer.body as WireError).error.code, 'BaselineFileNotFound');
    if (route.operationId === 'get-imodel-details')
      assert.equal(
        (answer.body as { iModel: { lastChangesetPushDateTime: unknown } }).iModel.lastChangesetPushDateTime,
        null,
        summary,
      );
  }
}

/** Links that were signed for it, in whatever way, lead to nothing. */
async function checkLinks({ origin, services }: TestServer, { what, id }: State): Promise<void> {
  const token = services.signedLinks.containerToken(`imodelblocks-${id}`, 60);
  const seed = await services.database.db
    .selectFrom('checkpoint')
    .select('file_id')
    .where('state', '=', 'successful')
    .executeTakeFirstOrThrow();
  const file = services.signedLinks.make(origin, {
    resource: `files/${seed.file_id}/${id}`,
    fileName: 'BASELINE.bim',
    permission: 'r',
  });
  for (const url of [`${origin}/storage/imodelblocks-${id}/manifest.bcv?${token}`, file])
    assert.equal((await fetch(url)).status, 404, `${what}: ${url}`);
}

onEachStore('Creations that failed under an earlier version', {}, (context) => {
  test('release their names with the upgrade, and their reasons no longer reveal details of the server', async () => {
    const { db } = context.server.services.database;
    const create = async (): Promise<{ id: string; name: string }> =>
      (
        (
          await context.api.post('/imodels', {
            iTwinId: context.iTwinId,
            name: randomUUID(),
            baselineFile: { size: 100 },
          })
        ).body as { iModel: { id: string; name: string } }
      ).iModel;
    const [failed, waiting, plain] = [await create(), await create(), await create()];
    const told = {
      '/srv': 'error opening iModel [/srv/data/work/model.bim]',
      'C:': 'cannot open C:\\data\\model.bim',
      stack: 'The worker ended.\n    at work',
      plain: 'The baseline file is a briefcase (number 5).',
    };
    await sql`drop index imodel_name`.execute(db);
    await sql`alter table imodel drop column failed_at`.execute(db);
    await sql`create unique index imodel_name on imodel (itwin_id, name) where deleted_at is null`.execute(db);
    const upgrade = () => db.transaction().execute((tx) => failedCreationsMigration(context.engine).up(tx));
    const fail = (id: string, reason: string) =>
      db
        .updateTable('operation')
        .set({ state: 'failed', failure_reason: reason, finished_at: Date.now() })
        .where('imodel_id', '=', id)
        .execute();
    await fail(failed.id, told['/srv']);
    await fail(plain.id, told.plain);
    await upgrade();

    assert.equal((await context.api.post('/imodels', { iTwinId: context.iTwinId, name: failed.name })).status, 201);
    assert.equal((await context.api.post('/imodels', { iTwinId: context.iTwinId, name: waiting.name })).status, 409);
    const reasonOf = async (id: string) =>
      (
        (await context.api.get(`/imodels/${id}/operations/create`)).body as {
          createOperation: { failureReason: string };
        }
      ).createOperation.failureReason;
    assert.deepEqual(
      [await reasonOf(failed.id), await reasonOf(plain.id)],
      ['The server met an unexpected error.', told.plain],
    );
    for (const text of [told['C:'], told.stack]) {
      await sql`drop index imodel_name`.execute(db);
      await sql`alter table imodel drop column failed_at`.execute(db);
      await db.updateTable('imodel').set({ name: randomUUID() }).where('id', '=', failed.id).execute();
      await sql`create unique index imodel_name on imodel (itwin_id, name) where deleted_at is null`.execute(db);
      await fail(failed.id, text);
      await upgrade();
      assert.equal(await reasonOf(failed.id), 'The server met an unexpected error.');
    }
  });
});
