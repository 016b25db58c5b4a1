import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { createServer, connect, type AddressInfo, type Socket } from 'node:net';
import { describe, test } from 'node:test';
import { sql } from 'kysely';
import { IModelsClient as NewestClient } from 'imodels-client-management-next';
import { routes } from '../apps/server/src/api/routes.ts';
import { collect } from '../apps/server/src/collector/collect.ts';
import type { Answer, WireError } from './support/api.ts';
import { makeIModel } from './support/clients.ts';
import { tablesInOrder } from '../apps/server/src/maintenance/migrateDatabase.ts';
import { Installation, people, setups } from './support/server.ts';
import { onEachDatabase, type Context } from './support/suite.ts';
import { until } from './support/until.ts';

const withKey = (key: string = randomUUID()): Record<string, string> => ({ 'idempotency-key': key });
const codeOf = (answer: Answer): string => (answer.body as WireError).error.code;
const isReplay = (answer: Answer): boolean => answer.headers.get('idempotent-replayed') === 'true';
/** An answer without its upload link, which is a new one each time. */
const comparable = ({ status, headers, body }: Answer) => ({
  status,
  location: headers.get('location'),
  operation: headers.get('create-imodel-operation'),
  body: (JSON.stringify(body) ?? '').replace(/"upload":\{[^}]*\}/, ''),
});

/** A POST of the API that can succeed, and a count of what it created. */
interface TestRequest {
  path: string;
  body?: unknown;
}

/** One request for each POST route, in a separate iTwin. */
async function requestsOf(context: Context): Promise<Record<string, TestRequest>> {
  const { api, iTwinId } = context;
  const made = await makeIModel(context.olivia, iTwinId, { changesets: 2 });
  const { id } = made;
  const role = (
    (
      await api.post(`/accesscontrol/itwins/${iTwinId}/roles`, {
        displayName: randomUUID(),
        permissions: ['imodels_read'],
      })
    ).body as { role: { id: string } }
  ).role.id;
  const group = (
    (await api.post(`/accesscontrol/itwins/${iTwinId}/groups`, { name: randomUUID(), description: 'd', members: [] }))
      .body as { group: { id: string } }
  ).group.id;
  const waiting = (await api.post('/imodels', { iTwinId, name: randomUUID(), baselineFile: { size: 4 } })).body as {
    iModel: { id: string; _links: { upload: { href: string } } };
  };
  await fetch(waiting.iModel._links.upload.href, {
    method: 'PUT',
    headers: { 'x-ms-blob-type': 'BlockBlob' },
    body: 'none',
  });
  const webhook = (
    (
      await api.post(`/itwins/${iTwinId}/webhooks`, {
        callbackUrl: 'https://example.test/',
        eventTypes: ['iModels.iModelCreated.v1'],
      })
    ).body as { webhook: { id: string } }
  ).webhook.id;
  const messageId = randomUUID();
  await context.server.services.database.db
    .insertInto('job')
    .values({
      id: messageId,
      kind: 'deliver',
      subject_id: webhook,
      tenant: iTwinId,
      payload: '{}',
      state: 'failed',
      run_at: Date.now(),
      attempt: 1,
      lease_owner: null,
      lease_until: null,
      last_error: 'x',
      created_at: Date.now(),
      trace: null,
    } as never)
    .execute();
  return {
    'get-users-by-id-list': { path: '/users/getbyidlist', body: [people.olivia.id] },
    'create-imodel': { path: '/imodels', body: { iTwinId, name: randomUUID(), baselineFile: { size: 10 } } },
    'clone-imodel': { path: `/imodels/${id}/clone`, body: { iTwinId, name: randomUUID() } },
    'fork-imodel': { path: `/imodels/${id}/fork`, body: { iTwinId, name: randomUUID(), preserveHistory: true } },
    'complete-imodel-baseline-file-upload': { path: `/imodels/${waiting.iModel.id}/baselinefile`, body: {} },
    'create-imodel-changeset': {
      path: `/imodels/${id}/changesets`,
      body: {
        id: randomBytes(20).toString('hex'),
        parentId: made.changesets[1]?.id,
        briefcaseId: made.briefcaseId,
        fileSize: 5,
      },
    },
    'create-imodel-changeset-group': { path: `/imodels/${id}/changesetgroups`, body: { description: 'work' } },
    'create-imodel-changeset-extended-data': {
      path: `/imodels/${id}/changesets/1/extendeddata`,
      body: { data: Buffer.from('{"a":1}').toString('base64') },
    },
    'create-imodel-named-version': {
      path: `/imodels/${id}/namedversions`,
      body: { name: 'first', changesetId: made.changesets[0]?.id },
    },
    'acquire-imodel-briefcase': { path: `/imodels/${id}/briefcases`, body: { deviceName: 'desk' } },
    'release-imodel-locks-chunk': {
      path: `/imodels/${id}/locks/release-chunk`,
      body: { briefcaseId: made.briefcaseId },
    },
    'create-imodel-share': {
      path: `/imodels/${id}/shares`,
      body: { name: 'guests', permission: 'imodels_read', expiresAt: new Date(Date.now() + 86_400_000).toISOString() },
    },
    'create-itwin': { path: '/itwins', body: { displayName: randomUUID(), class: 'Endeavor', subClass: 'Project' } },
    'create-itwin-role': {
      path: `/accesscontrol/itwins/${iTwinId}/roles`,
      body: { displayName: 'reader', permissions: [] },
    },
    'add-itwin-members': {
      path: `/accesscontrol/itwins/${iTwinId}/members/users`,
      body: { members: [{ email: people.max.email, roleIds: [role] }] },
    },
    'create-itwin-group': {
      path: `/accesscontrol/itwins/${iTwinId}/groups`,
      body: { name: 'crew', description: 'd', members: [] },
    },
    'add-itwin-group-members': {
      path: `/accesscontrol/itwins/${iTwinId}/members/groups`,
      body: { members: [{ groupId: group, roleIds: [role] }] },
    },
    'add-itwin-owner': { path: `/accesscontrol/itwins/${iTwinId}/members/owners`, body: { email: people.max.email } },
    'create-repository': {
      path: `/itwins/${iTwinId}/repositories`,
      body: { class: 'iModels', uri: 'https://example.test/' },
    },
    'create-itwin-webhook': {
      path: `/itwins/${iTwinId}/webhooks`,
      body: { callbackUrl: 'https://example.test/', eventTypes: ['iModels.iModelCreated.v1'] },
    },
    'redeliver-itwin-webhook-dead-letter': {
      path: `/itwins/${iTwinId}/webhooks/${webhook}/deadletters/${messageId}`,
      body: {},
    },
    'add-imodel-to-recents': { path: `/imodels/recents/${id}`, body: {} },
    'add-itwin-to-my-favorites': { path: `/itwins/favorites/${iTwinId}`, body: {} },
    'add-itwin-to-my-recents': { path: `/itwins/recents/${iTwinId}`, body: {} },
  };
}

/** Blocks the writers of a database until it is released. */
async function holdWriters(context: Context): Promise<{ release(): Promise<void> }> {
  const { db, engine } = context.server.services.database;
  let release: () => void = () => undefined;
  const released = new Promise<void>((resolve) => (release = resolve));
  let held: () => void = () => undefined;
  const holding = new Promise<void>((resolve) => (held = resolve));
  const ended = db.transaction().execute(async (tx) => {
    // The embedded database has a single writer.
    if (engine === 'postgres')
      await sql`lock table imodel, named_version, owner in share row exclusive mode`.execute(tx);
    held();
    await released;
  });
  await holding;
  return {
    release: async () => {
      release();
      await ended;
    },
  };
}

/** A proxy that passes everything on until its connections are cut. */
async function cuttingProxy(
  origin: string,
): Promise<{ origin: string; connections: number; cut(): void; close(): void }> {
  const { port } = new URL(origin);
  const sockets = new Set<Socket>();
  const proxy = { origin: '', connections: 0, cut: () => undefined as void, close: () => undefined as void };
  const server = createServer((client) => {
    proxy.connections++;
    const upstream = connect(Number(port), '127.0.0.1');
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on('error', () => undefined);
      socket.on('close', () => sockets.delete(socket));
    }
    client.pipe(upstream);
    upstream.pipe(client);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  proxy.origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  proxy.cut = () => {
    for (const socket of sockets) socket.destroy();
  };
  proxy.close = () => {
    proxy.cut();
    server.close();
  };
  return proxy;
}

onEachDatabase('Idempotency-Key', {}, (context) => {
  /** Rows of every table except the idempotency records, and the jobs, which run meanwhile. */
  async function rows(): Promise<Record<string, number>> {
    const { db } = context.server.services.database;
    const counts: Record<string, number> = {};
    for (const table of tablesInOrder)
      if (table !== 'repeatable_request' && table !== 'job')
        counts[table] = Number(
          (
            await db
              .selectFrom(table)
              .select((eb) => eb.fn.countAll<number>().as('count'))
              .executeTakeFirstOrThrow()
          ).count,
        );
    return counts;
  }
  const forget = () =>
    context.server.services.database.db
      .updateTable('repeatable_request')
      .set({ answer: null, lease_until: 0 })
      .execute();

  test('any repeated POST takes effect once and gets the first answer, also after a crash before the answer was stored', async () => {
    const requests = await requestsOf(context);
    assert.deepEqual(
      Object.keys(requests).sort(),
      routes
        .filter(({ method, reads }) => method === 'POST' && reads !== true)
        .map(({ operationId }) => operationId)
        .sort(),
    );
    for (const [operationId, { path, body }] of Object.entries(requests)) {
      const key = withKey();
      const first = await context.api.post(path, body, key);
      assert.ok(first.status < 300, `${operationId}: ${JSON.stringify(first.body)}`);
      assert.ok(!isReplay(first));
      const made = await rows();
      const second = await context.api.post(path, body, key);
      assert.deepEqual(comparable(second), comparable(first), operationId);
      assert.ok(isReplay(second));
      // As left behind by a server that is killed after the commit and before the answer is stored.
      await forget();
      const third = await context.api.post(path, body, key);
      assert.deepEqual(comparable(third), comparable(first), `${operationId} after a crash`);
      assert.deepEqual(await rows(), made, `${operationId} was done twice`);
    }
  });

  test('a server that crashed before the commit does not block the key', async () => {
    const { db } = context.server.services.database;
    const key = withKey();
    const body = { iTwinId: context.iTwinId, name: randomUUID() };
    const first = await context.api.post('/imodels', body, key);
    await context.api.delete(`/imodels/${(first.body as { iModel: { id: string } }).iModel.id}`);
    await db.updateTable('repeatable_request').set({ answer: null, outcomes: null, lease_until: 0 }).execute();
    const second = await context.api.post('/imodels', body, key);
    assert.equal(second.status, 201);
    assert.notDeepEqual(second.body, first.body);
  });

  test('the same key with another body, address or operation is refused', async () => {
    const key = withKey();
    const name = randomUUID();
    assert.equal((await context.api.post('/imodels', { iTwinId: context.iTwinId, name }, key)).status, 201);
    for (const [path, body] of [
      ['/imodels', { iTwinId: context.iTwinId, name: `${name}2` }],
      ['/imodels?a=b', { iTwinId: context.iTwinId, name }],
      ['/itwins', { displayName: name, class: 'Endeavor', subClass: 'Project' }],
    ] as const) {
      const answer = await context.api.post(path, body, key);
      assert.equal(answer.status, 422, path);
      assert.deepEqual((answer.body as WireError).error.details?.[0]?.target, 'Idempotency-Key');
    }
  });

  test('keys are limited in length and characters', async () => {
    const send = (key: string) =>
      context.api.post('/imodels', { iTwinId: context.iTwinId, name: randomUUID() }, withKey(key));
    for (const key of ['', ' ', 'a b', 'x'.repeat(256), 'caf\u00e9']) assert.equal((await send(key)).status, 422, key);
    for (const key of ['x'.repeat(255), '"quoted"', '!~']) assert.equal((await send(key)).status, 201, key);
  });

  test('a key belongs to one user and one application', async () => {
    const key = withKey();
    const body = { displayName: randomUUID(), class: 'Endeavor', subClass: 'Project' };
    const first = await context.api.post('/itwins', body, key);
    const elsewhere = await (await context.server.as('eve')).post('/itwins', body, key);
    assert.deepEqual([first.status, elsewhere.status, isReplay(elsewhere)], [201, 201, false]);
    const otherApplication = await (await context.server.as('olivia', 'basic-app')).post('/itwins', body, key);
    assert.deepEqual([otherApplication.status, codeOf(otherApplication)], [409, 'iTwinExists']);
  });

  test('a request that is still running is not started again', async () => {
    const { db } = context.server.services.database;
    const key = withKey();
    const body = { iTwinId: context.iTwinId, name: randomUUID() };
    const writers = await holdWriters(context);
    const first = context.api.post('/imodels', body, key);
    if (context.engine === 'postgres') {
      await until('the first request to run', async () =>
        (
          await db
            .selectFrom('repeatable_request')
            .select('id')
            .where('answer', 'is', null)
            .where('lease_until', '>', Date.now())
            .execute()
        ).length > 0
          ? true
          : undefined,
      );
      const second = await context.api.post('/imodels', body, key);
      assert.deepEqual(
        [second.status, codeOf(second), second.headers.get('retry-after')],
        [409, 'RequestInProgress', '1'],
      );
    }
    // The embedded database has one writer, so the second request waits for the first; either way there is one iModel.
    const third = context.api.post('/imodels', body, key);
    await writers.release();
    assert.deepEqual(comparable(await third), comparable(await first));
  });

  test('concurrent requests with the same key create one iModel', async () => {
    const key = withKey();
    const body = { iTwinId: context.iTwinId, name: randomUUID() };
    const answers = await Promise.all(Array.from({ length: 8 }, () => context.api.post('/imodels', body, key)));
    const ids = new Set(
      answers
        .filter(({ status }) => status === 201)
        .map((answer) => (answer.body as { iModel: { id: string } }).iModel.id),
    );
    assert.equal(ids.size, 1);
    for (const answer of answers) assert.ok(answer.status === 201 || codeOf(answer) === 'RequestInProgress');
  });

  test('refusals are stored too', async () => {
    const name = randomUUID();
    const made = await makeIModel(context.olivia, context.iTwinId, { name });
    const key = withKey();
    assert.equal((await context.api.post('/imodels', { iTwinId: context.iTwinId, name }, key)).status, 409);
    await context.api.delete(`/imodels/${made.id}`);
    const again = await context.api.post('/imodels', { iTwinId: context.iTwinId, name }, key);
    assert.deepEqual([again.status, codeOf(again), isReplay(again)], [409, 'iModelExists', true]);
  });

  test('the answer is repeated after its subject is deleted, unless it grants access', async () => {
    const source = await makeIModel(context.olivia, context.iTwinId, { changesets: 1 });
    const clone = { key: withKey(), body: { iTwinId: context.iTwinId, name: randomUUID() } };
    const push = {
      key: withKey(),
      body: {
        id: randomBytes(20).toString('hex'),
        parentId: source.changesets[0]?.id,
        briefcaseId: source.briefcaseId,
        fileSize: 1,
      },
    };
    const cloned = await context.api.post(`/imodels/${source.id}/clone`, clone.body, clone.key);
    assert.equal((await context.api.post(`/imodels/${source.id}/changesets`, push.body, push.key)).status, 201);
    await context.api.delete(`/imodels/${source.id}`);
    assert.deepEqual(
      comparable(await context.api.post(`/imodels/${source.id}/clone`, clone.body, clone.key)),
      comparable(cloned),
    );
    assert.equal(
      (await context.api.post(`/imodels/${source.id}/clone`, { ...clone.body, name: 'x' }, clone.key)).status,
      404,
    );
    assert.equal((await context.api.post(`/imodels/${source.id}/changesets`, push.body, push.key)).status, 404);
  });

  test('a repeated answer has a new, working upload link', async () => {
    const key = withKey();
    const body = { iTwinId: context.iTwinId, name: randomUUID(), baselineFile: { size: 4 } };
    const send = async () =>
      (await context.api.post('/imodels', body, key)).body as {
        iModel: { id: string; _links: { upload: { href: string }; complete: { href: string } } };
      };
    await send();
    const { iModel } = await send();
    const uploaded = await fetch(iModel._links.upload.href, {
      method: 'PUT',
      headers: { 'x-ms-blob-type': 'BlockBlob' },
      body: 'none',
    });
    assert.equal(uploaded.status, 201);
    assert.equal((await context.api.post(iModel._links.complete.href, {})).status, 200);
  });

  test('the database stores no secret of an answer in clear text', async () => {
    const made = await makeIModel(context.olivia, context.iTwinId);
    const key = withKey();
    const answer = await context.api.post(
      `/imodels/${made.id}/shares`,
      { name: 'x', permission: 'imodels_read', expiresAt: new Date(Date.now() + 86_400_000).toISOString() },
      key,
    );
    const { shareKey } = (answer.body as { share: { shareKey: string } }).share;
    const kept = JSON.stringify(
      await context.server.services.database.db.selectFrom('repeatable_request').selectAll().execute(),
    );
    assert.ok(!kept.includes(shareKey) && !kept.includes(key['idempotency-key'] as string));
  });

  test('the collector removes answers after 24 hours and not before', async () => {
    const { db } = context.server.services.database;
    const run = () =>
      collect(context.server.services.database, context.server.services.blobs.stores, {
        graceMs: 0,
        uploadLifeMs: 3_600_000,
        groupLifeMs: 3_600_000,
        seeds: new Map(),
        thorough: false,
      });
    const key = withKey();
    const body = { displayName: randomUUID(), class: 'Endeavor', subClass: 'Project' };
    await context.api.post('/itwins', body, key);
    const { expires_at } = await db
      .selectFrom('repeatable_request')
      .select('expires_at')
      .orderBy('expires_at', 'desc')
      .limit(1)
      .executeTakeFirstOrThrow();
    assert.ok(Math.abs(expires_at - Date.now() - 86_400_000) < 60_000);
    await run();
    assert.ok(isReplay(await context.api.post('/itwins', body, key)));
    await db.updateTable('repeatable_request').set({ expires_at: 1 }).execute();
    const late = await context.api.post('/itwins', body, key);
    assert.deepEqual([late.status, codeOf(late)], [409, 'iTwinExists']);
    await db.updateTable('repeatable_request').set({ expires_at: 1 }).execute();
    assert.ok((await run()).requests > 0);
    assert.equal((await db.selectFrom('repeatable_request').select('id').execute()).length, 0);
  });

  test('the official client that sends a key creates once over interrupted connections', async () => {
    const proxy = await cuttingProxy(context.server.origin);
    const writers = await holdWriters(context);
    try {
      const key = randomUUID();
      const client = new NewestClient({
        api: { baseUrl: `${proxy.origin}/imodels` },
        headers: { 'Idempotency-Key': () => key },
      });
      const name = randomUUID();
      const reached = new Promise<void>((resolve) =>
        context.server.running.app.server.once('request', () => resolve()),
      );
      const created = client.iModels.createEmpty({
        authorization: context.olivia.authorization,
        iModelProperties: { iTwinId: context.iTwinId, name },
      });
      await reached;
      proxy.cut();
      await writers.release();
      assert.equal((await created).name, name);
    } finally {
      proxy.close();
    }
  });
});

onEachDatabase('A creation whose answer was lost', {}, (context) => {
  /** Sends a request without a key, and cuts its connection while the server handles it. */
  async function sendAndDisconnect(path: string, body: unknown): Promise<void> {
    const { server } = context.server.running.app;
    const { db } = context.server.services.database;
    const token = await context.server.token('olivia');
    const writers = await holdWriters(context);
    const closed = new Promise<void>((resolve) => {
      server.once('request', (_request, response: { once(event: 'close', heard: () => void): void }) =>
        response.once('close', resolve),
      );
    });
    const { host, port } = new URL(context.server.origin);
    const socket = connect(Number(port), '127.0.0.1');
    const text = JSON.stringify(body);
    const received = new Promise<void>((resolve) =>
      server.once('request', (request: { once(event: 'end', heard: () => void): void }) =>
        request.once('end', resolve),
      ),
    );
    socket.write(
      `POST ${path} HTTP/1.1\r\nHost: ${host}\r\nAuthorization: Bearer ${token}\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(text)}\r\n\r\n${text}`,
    );
    await received;
    socket.destroy();
    await closed;
    await writers.release();
    await until('the answer to be kept', async () =>
      (await db.selectFrom('repeatable_request').select('id').where('answer', 'is not', null).execute()).length > 0
        ? true
        : undefined,
    );
  }
  const post = (path: string, body: unknown) => context.api.post(path, body);

  test('gets its answer again for the same request, once, with a working upload link', async () => {
    const body = { iTwinId: context.iTwinId, name: randomUUID(), baselineFile: { size: 4 } };
    await sendAndDisconnect('/imodels', body);
    assert.deepEqual(
      [
        (await post('/imodels', { ...body, description: 'other' })).status,
        (await (await context.server.as('admin')).post('/imodels', body)).status,
      ],
      [409, 409],
    );
    const again = await post('/imodels', body);
    assert.deepEqual([again.status, isReplay(again)], [201, true]);
    const { iModel } = again.body as { iModel: { id: string; _links: { upload: { href: string } } } };
    assert.equal(
      (
        await fetch(iModel._links.upload.href, {
          method: 'PUT',
          headers: { 'x-ms-blob-type': 'BlockBlob' },
          body: 'none',
        })
      ).status,
      201,
    );
    const third = await post('/imodels', body);
    assert.deepEqual([third.status, codeOf(third)], [409, 'iModelExists']);
  });

  test('can be repeated for clones, forks, named versions and iTwins too', async () => {
    const source = await makeIModel(context.olivia, context.iTwinId, { changesets: 1 });
    const { db } = context.server.services.database;
    for (const [path, body] of [
      [`/imodels/${source.id}/clone`, { iTwinId: context.iTwinId, name: randomUUID() }],
      [`/imodels/${source.id}/fork`, { iTwinId: context.iTwinId, name: randomUUID(), preserveHistory: true }],
      [`/imodels/${source.id}/namedversions`, { name: 'first' }],
      ['/itwins', { displayName: randomUUID(), class: 'Endeavor', subClass: 'Project' }],
    ] as const) {
      await db.deleteFrom('repeatable_request').execute();
      await sendAndDisconnect(path, body);
      const again = await post(path, body);
      assert.deepEqual([again.status < 300, isReplay(again)], [true, true], `${path} ${JSON.stringify(again.body)}`);
      if (again.status === 202) assert.equal((await context.api.get(again.headers.get('location') ?? '')).status, 200);
      assert.equal((await post(path, body)).status, 409);
    }
  });

  test('is refused when the created resource was changed since', async () => {
    const { db } = context.server.services.database;
    for (const touch of [
      (id: string) => context.api.patch(`/imodels/${id}`, { description: 'touched' }),
      (id: string) => context.api.post(`/imodels/${id}/briefcases`, {}),
    ]) {
      await db.deleteFrom('repeatable_request').execute();
      const body = { iTwinId: context.iTwinId, name: randomUUID() };
      await sendAndDisconnect('/imodels', body);
      const { iModels } = (await context.api.get(`/imodels?iTwinId=${context.iTwinId}&name=${body.name}`)).body as {
        iModels: { id: string }[];
      };
      assert.ok((await touch(iModels[0]?.id ?? '')).status < 300);
      const again = await post('/imodels', body);
      assert.deepEqual([again.status, codeOf(again)], [409, 'iModelExists']);
    }
  });

  test('is not stored when the answer arrived: a taken name is refused', async () => {
    const body = { iTwinId: context.iTwinId, name: randomUUID() };
    assert.equal((await post('/imodels', body)).status, 201);
    assert.equal((await post('/imodels', body)).status, 409);
  });

  test('succeeds with the official client, which retries by itself', async () => {
    const proxy = await cuttingProxy(context.server.origin);
    const writers = await holdWriters(context);
    try {
      const client = new NewestClient({ api: { baseUrl: `${proxy.origin}/imodels` } });
      const name = randomUUID();
      const { server } = context.server.running.app;
      const closed = new Promise<void>((resolve) => {
        server.once('request', (_request, response: { once(event: 'close', heard: () => void): void }) => {
          response.once('close', resolve);
          proxy.cut();
        });
      });
      const created = client.iModels.createEmpty({
        authorization: context.olivia.authorization,
        iModelProperties: { iTwinId: context.iTwinId, name },
      });
      await closed;
      await writers.release();
      assert.equal((await created).name, name);
      assert.ok(proxy.connections > 1);
    } finally {
      proxy.close();
    }
  });

  test('adds the way to continue to the error about one’s own unfinished creation; the message stays the documented one', async () => {
    const body = { iTwinId: context.iTwinId, name: randomUUID(), baselineFile: { size: 4 } };
    const first = (await post('/imodels', body)).body as { iModel: { id: string } };
    const { error } = (await post('/imodels', body)).body as WireError;
    assert.equal(error.message, 'iModel with the same name already exists within the iTwin.');
    assert.match(
      error.details?.[0]?.message ?? '',
      new RegExp(
        `${first.iModel.id}.*waits for its baseline file.*POST /imodels/${first.iModel.id}/baselinefile.*DELETE`,
      ),
    );
    const finished = await makeIModel(context.olivia, context.iTwinId);
    assert.equal(
      ((await post('/imodels', { iTwinId: context.iTwinId, name: finished.name })).body as WireError).error.details,
      undefined,
    );
  });
});

for (const setup of setups)
  describe(`Idempotency-Key across servers on ${setup.engine} and ${setup.store}`, () => {
    test('the answer is repeated after a restart', async () => {
      const installation = await Installation.create(setup);
      try {
        const key = withKey();
        const body = { displayName: randomUUID(), class: 'Endeavor', subClass: 'Project' };
        const before = await installation.start();
        const first = await (await before.as('olivia')).post('/itwins', body, key);
        // Another server on the same database, where the database allows several; else the same one, restarted.
        if (installation.engine === 'sqlite') await before.close();
        const other = await installation.start();
        try {
          assert.deepEqual(comparable(await (await other.as('olivia')).post('/itwins', body, key)), comparable(first));
        } finally {
          await other.close();
          if (installation.engine === 'postgres') await before.close();
        }
      } finally {
        installation.remove();
      }
    });
  });
