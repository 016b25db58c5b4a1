import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { connect } from 'node:net';
import { test } from 'node:test';
import { routes } from '../apps/server/src/api/routes.ts';
import type { WireError } from './support/api.ts';
import { makeIModel } from './support/clients.ts';
import { onEachDatabase } from './support/suite.ts';

onEachDatabase('Bad input', {}, (context) => {
  /** What the database holds, apart from who looked at what. */
  async function rows(): Promise<Record<string, number>> {
    const { db } = context.server.services.database;
    const counts: Record<string, number> = {};
    for (const table of ['imodel', 'itwin', 'role', 'member', 'changeset', 'pending_changeset', 'briefcase', 'operation', 'blob', 'baseline', 'audit', 'imodel_grant', 'named_version', 'object_lock', 'changeset_group', 'extended_data', 'mark'] as const)
      counts[table] = Number((await db.selectFrom(table).select((eb) => eb.fn.countAll<number>().as('count')).executeTakeFirstOrThrow()).count);
    return counts;
  }

  /** Sends bytes as they are: what fetch would tidy up first. */
  function raw(text: string): Promise<string> {
    const { port } = new URL(context.server.origin);
    return new Promise((resolve, reject) => {
      const socket = connect(Number(port), '127.0.0.1');
      let received = '';
      socket.on('data', (data) => (received += data.toString()));
      socket.once('end', () => resolve(received));
      socket.once('error', reject);
      socket.end(text);
    });
  }

  test('on any route: no body of any kind gives a 5xx or changes anything', async () => {
    const made = await makeIModel(context.olivia, context.iTwinId, { changesets: 1 });
    const deep = `${'['.repeat(20_000)}${']'.repeat(20_000)}`;
    const bodies: [what: string, body: string | Uint8Array | undefined, contentType: string | undefined][] = [
      ['none', undefined, 'application/json'],
      ['cut off', '{"iTwinId": "', 'application/json'],
      ['an array', '[]', 'application/json'],
      ['null', 'null', 'application/json'],
      ['a text', '"text"', 'application/json'],
      ['a number', '1e999', 'application/json'],
      ['deeply nested', deep, 'application/json'],
      ['binary', randomBytes(2000), 'application/json'],
      ['a prototype', '{"__proto__": {"iTwinId": "x"}, "constructor": {"prototype": {"a": 1}}}', 'application/json'],
      ['wrong types', '{"iTwinId": 5, "name": {}, "description": [], "deviceName": 5, "extent": "x", "changesetIndex": "1", "id": 1, "briefcaseId": "2", "state": 7, "members": {}, "rolePermissions": 3, "userPermissions": "u", "displayName": []}', 'application/json'],
      ['NUL characters', '{"iTwinId": "a\\u0000", "name": "b\\u0000", "id": "\\u0000", "displayName": "\\u0000", "members": [{"email": "\\u0000", "roleIds": ["\\u0000"]}]}', 'application/json'],
      ['huge numbers', '{"changesetIndex": 1e308, "briefcaseId": 9007199254740993, "fileSize": -1e308, "containersEnabled": 1e100, "deviceName": 1e308, "description": 1e308, "displayName": 1e308}', 'application/json'],
      ['xml', '<a/>', 'application/xml'],
      ['a form', 'a=b', 'application/x-www-form-urlencoded'],
      ['no content type', '{}', ''],
    ];
    const before = await rows();
    for (const route of routes.filter(({ body }) => body !== undefined)) {
      const url = route.path.replace(':iTwinId', context.iTwinId).replace(':iModelId', made.id).replace(':changeset', '1').replace(/:\w+/g, 'x');
      for (const [what, body, contentType] of bodies) {
        if (route.bodyOptional === true && what === 'none') continue;
        const answer = await context.api.send(route.method, url, body, contentType === undefined ? {} : { 'content-type': contentType });
        assert.ok(answer.status >= 400 && answer.status < 500, `${route.operationId} with ${what} answers ${answer.status} ${JSON.stringify(answer.body)}`);
        assert.ok(typeof (answer.body as WireError).error.code === 'string');
      }
    }
    assert.deepEqual(await rows(), before);
  });

  test('on any route: no path and no query gives a 5xx', async () => {
    const made = await makeIModel(context.olivia, context.iTwinId);
    const values = ['..%2f..%2fetc%2fpasswd', '%00', '%ff', "';drop table imodel;--", '%F0%9F%92%A9', 'a'.repeat(600), '-1', '1e9', '[]', '99999999999999999999', '%E0%A4%A'];
    for (const route of routes.filter(({ method }) => method === 'GET')) {
      for (const value of values) {
        const path = route.path.replace(/:\w+/g, value);
        const inner = route.path.replace(':iModelId', made.id).replace(':iTwinId', context.iTwinId).replace(/:\w+/g, value);
        const queries = ['$top', '$skip', '$continuationToken', '$orderBy', '$search', 'name', 'iTwinId', 'afterIndex', 'ownerId', 'state', 'subClass'].map((name) => `${name}=${value}`);
        for (const url of [path, inner, `${inner}?${queries.join('&')}`, `${inner}?iTwinId=${context.iTwinId}&${queries.filter((query) => !query.startsWith('iTwinId')).join('&')}`, `${inner}?$top=1&$top=2`]) {
          const answer = await context.api.get(url);
          assert.ok(answer.status < 500, `${url} answers ${answer.status}`);
        }
      }
    }
  });

  test('tokens of lists that were made up give 422, never a 5xx', async () => {
    const token = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');
    const made = await makeIModel(context.olivia, context.iTwinId);
    for (const value of [null, 5, [], ['created_at+id+', 0], ['created_at+id+', 0, 'x', 'y'], ['created_at+id+', 0, 1.5, 'y'], ['created_at+id+', 2, 1, 'y'], ['created_at+id+', 0, 1, 'a\0'], { a: 1 }]) {
      const answer = await context.api.get(`/imodels?iTwinId=${context.iTwinId}&$continuationToken=${token(value)}`);
      assert.equal(answer.status, 422, JSON.stringify(value));
    }
    assert.equal((await context.api.get(`/imodels/${made.id}/changesets?$continuationToken=${token(['index+', 0, 9])}`)).status, 200);
  });

  test('a body above 1 MiB is refused by 413', async () => {
    const answer = await context.api.post('/imodels', { iTwinId: context.iTwinId, name: 'x', filler: 'f'.repeat(1024 * 1024) });
    assert.deepEqual([answer.status, (answer.body as WireError).error.code], [413, 'RequestTooLarge']);
  });

  test('an address that is not there answers 404 in the envelope', async () => {
    for (const url of ['/imodels/a/b/c/d', '/nothing', '/imodels/../../etc/passwd', '/storage/blobs', '/storage/blobs/x/y/z']) {
      const answer = await context.api.get(url);
      assert.equal(answer.status, 404, url);
      assert.equal((answer.body as WireError).error.code, 'NotFound');
    }
  });

  test('what is not even HTTP is refused, and the server goes on', async () => {
    assert.match(await raw('GARBAGE\r\n\r\n'), /^HTTP\/1\.1 400/);
    assert.match(await raw(`GET /itwins HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${'a'.repeat(40_000)}\r\n\r\n`), /^HTTP\/1\.1 431/);
    assert.match(await raw('GET /imodels/%zz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'), /^HTTP\/1\.1 (400|404)/);
    assert.equal((await context.api.get('/itwins')).status, 200);
  });

  test('a Host header that is no host does not get into links', async () => {
    const made = await makeIModel(context.olivia, context.iTwinId);
    const token = await context.server.token('olivia');
    const answer = await raw(`GET /imodels/${made.id} HTTP/1.1\r\nHost: evil.example/path?"<x>\r\nAuthorization: Bearer ${token}\r\nConnection: close\r\n\r\n`);
    assert.ok(!answer.includes('evil.example/path'));
  });
});
