/**
 * Attacks with slow requests: a body whose end is held back until its sender has lost the permission that was checked at its
 * start, and bodies, headers and uploads that never end.
 */
import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { after, before, describe, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { routes } from '../../apps/server/src/api/routes.ts';
import { requirePermitted } from '../../apps/server/src/cloning/stillPermitted.ts';
import type { Tx } from '../../apps/server/src/db/database.ts';
import type { Api, WireError } from '../support/api.ts';
import { makeIModel } from '../support/clients.ts';
import { RawRequest } from '../support/rawRequest.ts';
import { rowCounts } from '../support/rows.ts';
import { bootServer, endServer, people, type TestServer } from '../support/server.ts';
import { onEachDatabase, type Context } from '../support/suite.ts';
import { until } from '../support/until.ts';

/** Makes Max an owner of an iTwin, with all permissions on it. */
async function makeOwner({ api }: Context, iTwinId: string): Promise<void> {
  const added = await api.post(`/accesscontrol/itwins/${iTwinId}/members/owners`, { email: people.max.email });
  assert.equal(added.status, 201, JSON.stringify(added.body));
}

/** Counts how often a server has checked the permissions of a caller on a resource of a request. */
function countPermissionChecks(server: TestServer): { count: number; end(): void } {
  const { permissions } = server.services;
  const original = permissions.find.bind(permissions);
  const checks = { count: 0, end: () => void Reflect.deleteProperty(permissions, 'find') };
  permissions.find = async (...given: Parameters<typeof permissions.find>) => {
    const found = await original(...given);
    checks.count++;
    return found;
  };
  return checks;
}

/** A request that Max is permitted to make until he is removed. */
interface PendingRequest {
  method: string;
  path: string;
  body: unknown;
  /** It waits for the row lock of its iModel. */
  locks?: boolean;
}

async function requestsOn(
  { api, olivia }: Context,
  iTwinId: string,
): Promise<{ iModelId: string; wanted: PendingRequest[] }> {
  const made = await makeIModel(olivia, iTwinId, { changesets: 2 });
  const { id: iModelId } = made;
  const idIn = async (path: string, kind: string, body: unknown): Promise<string> => {
    const answer = await api.post(path, body);
    assert.equal(answer.status, 201, `${path}: ${JSON.stringify(answer.body)}`);
    return ((answer.body as Record<string, { id: string }>)[kind] as { id: string }).id;
  };
  const [imodel, itwin, access] = [`/imodels/${iModelId}`, `/itwins/${iTwinId}`, `/accesscontrol/itwins/${iTwinId}`];
  const max = people.max.id;
  const role = await idIn(`${access}/roles`, 'role', { displayName: randomUUID(), permissions: ['imodels_read'] });
  const group = await idIn(`${access}/groups`, 'group', { name: randomUUID(), description: 'd', members: [] });
  const webhook = await idIn(`${itwin}/webhooks`, 'webhook', {
    callbackUrl: 'https://example.test/',
    eventTypes: ['iModels.iModelCreated.v1'],
  });
  const repository = await idIn(`${itwin}/repositories`, 'repository', {
    class: 'iModels',
    uri: `https://${randomUUID()}.test/`,
  });
  const version = await idIn(`${imodel}/namedversions`, 'namedVersion', {
    name: 'version',
    changesetId: made.changesets[0]?.id,
  });
  const changesetGroup = await idIn(`${imodel}/changesetgroups`, 'changesetGroup', { description: 'work' });
  const inMonths = new Date(Date.now() + 86_400_000).toISOString();
  return {
    iModelId,
    wanted: [
      { method: 'POST', path: `${imodel}/clone`, body: { iTwinId, name: 'cloned' }, locks: true },
      { method: 'POST', path: `${imodel}/fork`, body: { iTwinId, name: 'forked', preserveHistory: true }, locks: true },
      {
        method: 'POST',
        path: '/imodels',
        body: { iTwinId, name: 'from template', template: { iModelId } },
        locks: true,
      },
      { method: 'POST', path: '/imodels', body: { iTwinId, name: 'empty' } },
      { method: 'PATCH', path: imodel, body: { name: 'renamed' }, locks: true },
      { method: 'POST', path: `${imodel}/changesetgroups`, body: { description: 'mine' }, locks: true },
      { method: 'PATCH', path: `${imodel}/changesetgroups/${changesetGroup}`, body: { state: 'completed' } },
      {
        method: 'POST',
        path: `${imodel}/namedversions`,
        body: { name: 'mine', changesetId: made.changesets[1]?.id },
        locks: true,
      },
      { method: 'PATCH', path: `${imodel}/namedversions/${version}`, body: { name: 'renamed' }, locks: true },
      { method: 'POST', path: `${imodel}/briefcases`, body: { deviceName: 'desk' }, locks: true },
      { method: 'DELETE', path: `${imodel}/briefcases/${made.briefcaseId}`, body: undefined, locks: true },
      {
        method: 'POST',
        path: `${imodel}/shares`,
        body: { name: 'guests', permission: 'imodels_read', expiresAt: inMonths },
      },
      {
        method: 'PUT',
        path: `${imodel}/userpermissions`,
        body: { userPermissions: [{ userId: max, permissions: ['imodels_manage'] }] },
        locks: true,
      },
      { method: 'PATCH', path: itwin, body: { displayName: randomUUID() } },
      { method: 'POST', path: `${access}/roles`, body: { displayName: 'mine', permissions: [] } },
      {
        method: 'PATCH',
        path: `${access}/roles/${role}`,
        body: { displayName: 'renamed', permissions: ['imodels_manage'] },
      },
      {
        method: 'POST',
        path: `${access}/members/users`,
        body: { members: [{ email: people.max.email, roleIds: [role] }] },
      },
      { method: 'POST', path: `${access}/members/owners`, body: { email: people.newcomer.email } },
      { method: 'POST', path: `${access}/members/groups`, body: { members: [{ groupId: group, roleIds: [role] }] } },
      { method: 'POST', path: `${access}/groups`, body: { name: 'crew', description: 'd', members: [] } },
      { method: 'PATCH', path: `${access}/groups/${group}`, body: { name: 'crew', members: [people.max.email] } },
      { method: 'DELETE', path: `${access}/groups/${group}`, body: undefined },
      { method: 'POST', path: `${itwin}/repositories`, body: { class: 'iModels', uri: 'https://example.test/' } },
      { method: 'PATCH', path: `${itwin}/repositories/${repository}`, body: { uri: 'https://changed.test/' } },
      { method: 'DELETE', path: `${itwin}/repositories/${repository}`, body: undefined },
      {
        method: 'POST',
        path: `${itwin}/webhooks`,
        body: { callbackUrl: 'https://example.test/', eventTypes: ['iModels.iModelCreated.v1'] },
      },
      { method: 'DELETE', path: `${itwin}/webhooks/${webhook}`, body: undefined },
      { method: 'PUT', path: `/imodels/favorites/${iModelId}`, body: undefined },
      { method: 'DELETE', path: imodel, body: undefined, locks: true },
    ],
  };
}

/** Removes all permissions of Max on an iTwin. */
async function removeMax(tx: Tx, iTwinId: string): Promise<void> {
  await tx.deleteFrom('owner').where('itwin_id', '=', iTwinId).where('user_id', '=', people.max.id).execute();
}

const refusals = [
  'iModelNotFound',
  'iTwinNotFound',
  'ItwinNotFound',
  'iTwinRepositoryNotFound',
  'InsufficientPermissions',
];

onEachDatabase('A caller whose access is revoked', {}, (context) => {
  /** Asserts that nothing was changed except that Max is no owner any more; his attempt is in the audit log. */
  async function assertUnchanged(before: Record<string, number>): Promise<void> {
    const { audit } = await rowCounts(context.server.services.database.db);
    assert.deepEqual(await rowCounts(context.server.services.database.db), {
      ...before,
      owner: Number(before['owner']) - 1,
      audit,
    });
  }

  /** An iTwin that Max owns together with Olivia. */
  async function sharedITwin(): Promise<{ iTwinId: string; max: Api }> {
    const iTwinId = await context.server.iTwin();
    await makeOwner(context, iTwinId);
    return { iTwinId, max: await context.server.as('max') };
  }

  test('while the last byte of a body is held back is refused on every writing route, and nothing is created', async () => {
    const { iTwinId } = await sharedITwin();
    const { id: iModelId } = await makeIModel(context.olivia, iTwinId, { changesets: 1 });
    const authorization = `Bearer ${await context.server.token('max')}`;
    // Owners may do everything that is not reserved for administrators of the organization.
    const writing = routes.filter(
      ({ method, access }) =>
        method !== 'GET' && access.on !== 'caller' && access.permission !== 'organization_administrator',
    );
    const { db } = context.server.services.database;
    const before = await rowCounts(db);
    const checks = countPermissionChecks(context.server);
    const held: RawRequest[] = [];
    try {
      for (const route of writing) {
        const sample: Record<string, string> = { iTwinId, iModelId, changeset: '1', briefcaseId: '2' };
        const url = route.path.replace(/:(\w+)/g, (_, name: string) => sample[name] ?? randomUUID());
        const body = JSON.stringify({ iTwinId, name: randomUUID(), iTwin: iTwinId });
        const type = route.file?.types[0] ?? 'application/json';
        const request = await RawRequest.open(context.server.origin, [
          `${route.method} ${url} HTTP/1.1`,
          'host: localhost',
          `authorization: ${authorization}`,
          `content-type: ${type}`,
          `content-length: ${body.length}`,
          '',
        ]);
        request.send(body.slice(0, -1));
        held.push(request);
      }
      const early = writing.filter(({ access }) => access.on !== 'itwin' || access.from === 'path').length;
      await until('every request is judged', () => (checks.count >= early ? true : undefined));
      assert.deepEqual(
        held.map(({ received }) => received.status).filter((status) => status !== 0),
        [],
      );
      await context.server.services.database.db.transaction().execute((tx) => removeMax(tx, iTwinId));
      for (const request of held) request.send('}');
      for (const [n, request] of held.entries()) {
        const { status, text } = await until(`${writing[n]?.operationId} is answered`, () =>
          request.received.text.includes('"error"') ? request.received : undefined,
        );
        assert.ok(
          refusals.some((code) => text.includes(`"code":"${code}"`)),
          `${writing[n]?.operationId}: ${status} ${text}`,
        );
      }
    } finally {
      checks.end();
      for (const request of held) request.end();
    }
    await assertUnchanged(before);
  });

  test('while its permissions are being read is refused, although the body has ended when they are known', async () => {
    const { iTwinId } = await sharedITwin();
    const { id: iModelId } = await makeIModel(context.olivia, iTwinId);
    const authorization = `Bearer ${await context.server.token('max')}`;
    const { db } = context.server.services.database;
    const before = await rowCounts(db);
    const { permissions } = context.server.services;
    const original = permissions.find.bind(permissions);
    const incoming: IncomingMessage[] = [];
    const { server } = context.server.running.app;
    const note = (request: IncomingMessage) => void incoming.push(request);
    server.on('request', note);
    // Not valid: the error of validation would tell that the iModel exists.
    const body = '{"name":1}';
    const request = await RawRequest.open(context.server.origin, [
      `PATCH /imodels/${iModelId} HTTP/1.1`,
      'host: localhost',
      `authorization: ${authorization}`,
      'content-type: application/json',
      `content-length: ${body.length}`,
      '',
    ]);
    try {
      permissions.find = async (...given: Parameters<typeof permissions.find>) => {
        const found = await original(...given);
        Reflect.deleteProperty(permissions, 'find');
        await db.transaction().execute((tx) => removeMax(tx, iTwinId));
        request.send(body.slice(-1));
        await until('the body has ended', () => (incoming[0]?.complete === true ? true : undefined));
        return found;
      };
      request.send(body.slice(0, -1));
      const { text } = await until('an answer', () =>
        request.received.text.includes('"error"') ? request.received : undefined,
      );
      assert.ok(text.includes('"code":"iModelNotFound"'), text);
    } finally {
      Reflect.deleteProperty(permissions, 'find');
      server.off('request', note);
      request.end();
    }
    await assertUnchanged(before);
  });

  test('while a request waits to write is refused by the transaction that would write, and nothing is created', async () => {
    const { iTwinId, max } = await sharedITwin();
    const { iModelId, wanted } = await requestsOn(context, iTwinId);
    const { db, engine } = context.server.services.database;
    // Only requests that wait can lose their permission meanwhile: on SQLite all that write, on PostgreSQL those that lock the
    // iModel, and no more of these than there are connections.
    const waiting = engine === 'sqlite' ? wanted : wanted.filter(({ locks }) => locks === true).slice(0, 3);
    // Known before, so that recording his access does not wait.
    assert.equal((await max.get(`/imodels/${iModelId}`)).status, 200);
    const before = await rowCounts(db);
    const checks = countPermissionChecks(context.server);
    let answers: Promise<{ status: number; body: unknown }[]> = Promise.resolve([]);
    try {
      await db.transaction().execute(async (tx) => {
        if (engine === 'postgres')
          await tx.selectFrom('imodel').select('id').where('id', '=', iModelId).forUpdate().execute();
        answers = Promise.all(waiting.map(({ method, path, body }) => max.send(method, path, body)));
        await until('every request is judged', () => (checks.count >= waiting.length ? true : undefined));
        // Long enough that a request that passed the check waits for its lock by now. A later one is refused all the same.
        await pause(500);
        await removeMax(tx, iTwinId);
      });
      for (const [n, { status, body }] of (await answers).entries()) {
        const { method, path } = waiting[n] as PendingRequest;
        assert.ok(
          refusals.includes((body as WireError | undefined)?.error?.code ?? ''),
          `${method} ${path} answers ${status} ${JSON.stringify(body)}`,
        );
      }
    } finally {
      checks.end();
    }
    await assertUnchanged(before);
  });

  test('while a fork or copy waits for its job gets none, and learns the reason', async () => {
    const { iTwinId } = await sharedITwin();
    const { id: fromIModelId } = await makeIModel(context.olivia, iTwinId);
    const { services } = context.server;
    const caller = {
      user: { ...people.max, identity: { issuer: 'offshoot', subject: people.max.id } },
      application: { id: 'suite', name: 'Suite', tier: 'Unlimited' },
      administeredOrganizationIds: [],
    };
    const { id: targetId } = await makeIModel(context.olivia, iTwinId);
    await services.database.db.transaction().execute((tx) => requirePermitted(tx, targetId, { caller, fromIModelId }));
    await services.database.db.transaction().execute((tx) => removeMax(tx, iTwinId));
    await assert.rejects(
      services.database.db.transaction().execute((tx) => requirePermitted(tx, targetId, { caller, fromIModelId })),
      /The requester no longer has the permissions that this iModel needs/,
    );
  });
});

describe('A request that never ends', () => {
  let server: TestServer;
  before(async () => {
    server = await bootServer('sqlite', { requests: { headersSeconds: 1, bodySeconds: 1, uploadStallSeconds: 1 } });
  });
  after(() => endServer(server));

  /** Sends headers and then one byte after the other until the server closes the connection. @returns the answer */
  async function trickle(head: readonly string[], byte: string): Promise<string> {
    const request = await RawRequest.open(server.origin, head);
    try {
      return await until('the connection is closed', () => {
        if (request.received.closed) return request.received.text;
        request.send(byte);
        return undefined;
      });
    } finally {
      request.end();
    }
  }

  const clone = (authorization: string[], path = `/imodels/${randomUUID()}/clone`): string[] => [
    `POST ${path} HTTP/1.1`,
    'host: localhost',
    ...authorization,
    'content-type: application/json',
    'content-length: 1000000',
    '',
  ];

  test('answers 408 when its body trickles in, and creates nothing', async () => {
    const iTwinId = await server.iTwin();
    const api = await server.as('olivia');
    const { iModel } = (await api.post('/imodels', { iTwinId, name: 'source' })).body as { iModel: { id: string } };
    const before = await rowCounts(server.services.database.db);
    const text = await trickle(
      clone([`authorization: Bearer ${await server.token('olivia')}`], `/imodels/${iModel.id}/clone`),
      ' ',
    );
    assert.match(text, /^HTTP\/1\.1 408 .*"code":"RequestTimeout"/s);
    assert.deepEqual(await rowCounts(server.services.database.db), before);
  });

  for (const [status, what] of Object.entries({ 401: 'without a token', 404: 'to nothing' }))
    test(`${what} is answered at once, and its connection is closed although the body continues`, async () => {
      const text = await trickle(
        clone(
          status === '401' ? [] : [`authorization: Bearer ${await server.token('olivia')}`],
          status === '401' ? undefined : '/nothing/here',
        ),
        ' ',
      );
      assert.match(text, new RegExp(`^HTTP/1\\.1 ${status} `));
    });

  test('is closed while its headers trickle in', async () => {
    const text = await trickle(['GET /imodels HTTP/1.1', 'host: localhost'], 'x-more: a\r\n');
    assert.match(text, /^(HTTP\/1\.1 408 .*|)$/s);
  });

  test('answers 408 when its upload trickles in, and the upload is not stored', async () => {
    const iTwinId = await server.iTwin();
    const api = await server.as('olivia');
    const { iModel } = (await api.post('/imodels', { iTwinId, name: 'uploaded', baselineFile: { size: 1_000_000 } }))
      .body as { iModel: { id: string; _links: { upload: { href: string } } } };
    for (const comp of ['', `&comp=block&blockid=${randomBytes(8).toString('hex')}`, '&comp=blocklist']) {
      const { pathname, search } = new URL(iModel._links.upload.href);
      const text = await trickle(
        [
          `PUT ${pathname}${search}${comp} HTTP/1.1`,
          'host: localhost',
          'x-ms-blob-type: BlockBlob',
          ...(comp === '' ? ['content-length: 1000000'] : ['content-length: 900000']),
          '',
        ],
        'a',
      );
      assert.match(text, /^HTTP\/1\.1 408 /, comp);
    }
    assert.equal((await api.post(`/imodels/${iModel.id}/baselinefile`, {})).status, 404);
  });
});
