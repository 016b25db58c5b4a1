import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { connect } from 'node:net';
import { test } from 'node:test';
import { sql } from 'kysely';
import { routes } from '../apps/server/src/api/routes.ts';
import { idempotencyMigration } from '../apps/server/src/db/migrations/0016-idempotency.ts';
import type { WireError } from './support/api.ts';
import { makeIModel } from './support/clients.ts';
import { rowCounts } from './support/rows.ts';
import { onEachDatabase } from './support/suite.ts';

onEachDatabase('Bad input', {}, (context) => {
  const rows = () => rowCounts(context.server.services.database.db);

  /** Sends bytes unchanged, which fetch would normalize. */
  function raw(text: string): Promise<string> {
    const { port } = new URL(context.server.origin);
    return new Promise((resolve, reject) => {
      const socket = connect(Number(port), '127.0.0.1');
      let received = '';
      socket.on('data', (data) => (received += data.toString()));
      socket.once('end', () => resolve(received));
      socket.once('error', reject);
      // This side stays open: the server drops a request whose client has disconnected.
      socket.write(text);
    });
  }

  test('no body of any kind causes a 5xx or a change, on any route', async () => {
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
      [
        'wrong types',
        '{"iTwinId": 5, "name": {}, "description": [], "deviceName": 5, "extent": "x", "changesetIndex": "1", "id": 1, "briefcaseId": "2", "state": 7, "members": {}, "rolePermissions": 3, "userPermissions": "u", "displayName": []}',
        'application/json',
      ],
      [
        'NUL characters',
        '{"iTwinId": "a\\u0000", "name": "b\\u0000", "id": "\\u0000", "displayName": "\\u0000", "members": [{"email": "\\u0000", "roleIds": ["\\u0000"]}]}',
        'application/json',
      ],
      [
        'huge numbers',
        '{"changesetIndex": 1e308, "briefcaseId": 9007199254740993, "fileSize": -1e308, "containersEnabled": 1e100, "deviceName": 1e308, "description": 1e308, "displayName": 1e308}',
        'application/json',
      ],
      ['xml', '<a/>', 'application/xml'],
      ['a form', 'a=b', 'application/x-www-form-urlencoded'],
      ['no content type', '{}', ''],
    ];
    const before = await rows();
    for (const route of routes.filter(({ body }) => body !== undefined)) {
      const url = route.path
        .replace(':iTwinId', context.iTwinId)
        .replace(':iModelId', made.id)
        .replace(':changeset', '1')
        .replace(/:\w+/g, 'x');
      for (const [what, body, contentType] of bodies) {
        if (route.bodyOptional === true && what === 'none') continue;
        // An empty list is a valid body of a route that takes a list.
        if (what === 'an array' && (route.body as { type?: string } | undefined)?.type === 'array') continue;
        const answer = await context.api.send(
          route.method,
          url,
          body,
          contentType === undefined ? {} : { 'content-type': contentType },
        );
        assert.ok(
          answer.status >= 400 && answer.status < 500,
          `${route.operationId} with ${what} answers ${answer.status} ${JSON.stringify(answer.body)}`,
        );
        assert.ok(typeof (answer.body as WireError).error.code === 'string');
      }
    }
    assert.deepEqual(await rows(), before);
  });

  test('no path and no query causes a 5xx, on any route', async () => {
    const made = await makeIModel(context.olivia, context.iTwinId);
    const values = [
      '..%2f..%2fetc%2fpasswd',
      '%00',
      '%ff',
      "';drop table imodel;--",
      '%F0%9F%92%A9',
      'a'.repeat(600),
      '-1',
      '1e9',
      '[]',
      '99999999999999999999',
      '%E0%A4%A',
    ];
    for (const route of routes.filter(({ method }) => method === 'GET')) {
      for (const value of values) {
        const path = route.path.replace(/:\w+/g, value);
        const inner = route.path
          .replace(':iModelId', made.id)
          .replace(':iTwinId', context.iTwinId)
          .replace(/:\w+/g, value);
        const queries = [
          '$top',
          '$skip',
          '$continuationToken',
          '$orderBy',
          '$search',
          'name',
          'iTwinId',
          'afterIndex',
          'ownerId',
          'state',
          'subClass',
        ].map((name) => `${name}=${value}`);
        for (const url of [
          path,
          inner,
          `${inner}?${queries.join('&')}`,
          `${inner}?iTwinId=${context.iTwinId}&${queries.filter((query) => !query.startsWith('iTwinId')).join('&')}`,
          `${inner}?$top=1&$top=2`,
        ]) {
          const answer = await context.api.get(url);
          assert.ok(answer.status < 500, `${url} answers ${answer.status}`);
        }
      }
    }
  });

  test('a body with bytes or a charset other than UTF-8 is refused and changes nothing', async () => {
    const made = await makeIModel(context.olivia, context.iTwinId, { changesets: 1 });
    const before = await rows();
    const text = (value: string): string =>
      JSON.stringify({
        iTwinId: context.iTwinId,
        name: value,
        displayName: value,
        description: value,
        deviceName: value,
        class: 'Endeavor',
        subClass: 'Project',
      });
    const bodies: [what: string, body: Uint8Array, contentType: string][] = [
      ['ISO-8859-1', Buffer.from(text('Caf\u00e9'), 'latin1'), 'application/json'],
      ['declared ISO-8859-1', Buffer.from(text('Caf\u00e9'), 'latin1'), 'application/json; charset=iso-8859-1'],
      ['declared UTF-16', Buffer.from(text('x'), 'utf16le'), 'application/json; charset="utf-16"'],
      [
        'overlong',
        Buffer.concat([Buffer.from('{"name":"'), Buffer.from([0xc0, 0xaf]), Buffer.from('"}')]),
        'application/json',
      ],
      [
        'a surrogate in UTF-8',
        Buffer.concat([Buffer.from('{"name":"'), Buffer.from([0xed, 0xa0, 0x80]), Buffer.from('"}')]),
        'application/json',
      ],
      ['cut off within a character', Buffer.from(text('\u00e9')).subarray(0, -6), 'application/json; charset=utf-8'],
      [
        'an escaped lone surrogate',
        Buffer.from(text('x').replace('"x"', '"a\\ud800"').replaceAll('"x"', '"\\udc00b"')),
        'application/json',
      ],
      ['a lone surrogate in a key', Buffer.from('{"\\ud800": 1, "iTwinId": "x"}'), 'application/json'],
    ];
    for (const route of routes.filter(({ body }) => body !== undefined)) {
      const url = route.path
        .replace(':iTwinId', context.iTwinId)
        .replace(':iModelId', made.id)
        .replace(':changeset', '1')
        .replace(/:\w+/g, 'x');
      for (const [what, body, contentType] of bodies) {
        const answer = await context.api.send(route.method, url, body, { 'content-type': contentType });
        assert.ok(
          answer.status >= 400 && answer.status < 500,
          `${route.operationId} with ${what} answers ${answer.status}`,
        );
      }
    }
    assert.deepEqual(await rows(), before);
  });

  test('UTF-8 bodies are accepted unchanged, with and without a charset', async () => {
    for (const contentType of [
      'application/json',
      'application/json; charset=UTF-8',
      'application/json;charset="utf-8"',
    ]) {
      const name = `Caf\u00e9 \ud83d\ude00 ${randomUUID()}`;
      const answer = await context.api.post(
        '/imodels',
        Buffer.from(JSON.stringify({ iTwinId: context.iTwinId, name })),
        { 'content-type': contentType },
      );
      assert.deepEqual(
        [answer.status, (answer.body as { iModel?: { name: string } }).iModel?.name],
        [201, name],
        contentType,
      );
    }
  });

  test('a query that is not UTF-8 is refused; a percent sign that starts no escape is taken literally', async () => {
    const name = `100% Caf\u00e9 ${randomUUID()}`;
    await context.api.post('/imodels', { iTwinId: context.iTwinId, name });
    const found = async (query: string) => context.api.get(`/imodels?iTwinId=${context.iTwinId}&name=${query}`);
    for (const query of [
      encodeURIComponent(name),
      name.replaceAll(' ', '%20').replace('\u00e9', '%C3%A9'),
      encodeURIComponent(name).replaceAll('%20', '+'),
    ])
      assert.equal(((await found(query)).body as { iModels: unknown[] }).iModels.length, 1, query);
    for (const bytes of ['%ff', 'Caf%E9', '%C0%AF', '%ED%A0%80', 'a%00'])
      assert.equal((await found(bytes)).status, 422, bytes);
    const token = await context.server.token('olivia');
    const unescaped = await raw(
      `GET /imodels?iTwinId=${context.iTwinId}&name=Caf\u00e9 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${token}\r\nConnection: close\r\n\r\n`,
    );
    assert.match(unescaped, /^HTTP\/1\.1 400/);
  });

  test('both Unicode normal forms of a name are the same name and find it', async () => {
    const [composed, decomposed] = ['Caf\u00e9 X', 'Caf\u00e9 X'.normalize('NFD')];
    const iTwinId = await context.server.iTwin('olivia', `${decomposed} ${randomUUID()}`);
    const first = await context.api.post('/imodels', { iTwinId, name: decomposed, description: decomposed });
    assert.equal((first.body as { iModel: { name: string } }).iModel.name, composed);
    for (const query of ['name', '$search'])
      for (const spelling of [composed, decomposed]) {
        const { iModels } = (
          await context.api.get(`/imodels?iTwinId=${iTwinId}&${query}=${encodeURIComponent(spelling)}`)
        ).body as { iModels: unknown[] };
        assert.equal(iModels.length, 1, query);
      }
    assert.equal((await context.api.post('/imodels', { iTwinId, name: composed })).status, 409);
    const { id } = (first.body as { iModel: { id: string } }).iModel;
    assert.equal((await context.api.post(`/imodels/${id}/clone`, { iTwinId, name: decomposed })).status, 409);
    assert.equal((await context.api.post(`/imodels/${id}/namedversions`, { name: decomposed })).status, 201);
    assert.equal((await context.api.post(`/imodels/${id}/namedversions`, { name: composed })).status, 409);
    const { namedVersions } = (
      await context.api.get(`/imodels/${id}/namedversions?name=${encodeURIComponent(decomposed)}`)
    ).body as { namedVersions: unknown[] };
    assert.equal(namedVersions.length, 1);
    const iTwin = `${decomposed} ${randomUUID()}`;
    const displayName = { class: 'Endeavor', subClass: 'Project' };
    assert.equal((await context.api.post('/itwins', { ...displayName, displayName: iTwin })).status, 201);
    assert.equal(
      (await context.api.post('/itwins', { ...displayName, displayName: iTwin.normalize('NFC') })).status,
      409,
    );
  });

  test('an upgrade normalizes existing names, except one that would then be taken', async () => {
    const { db, engine } = context.server.services.database;
    const iTwinId = await context.server.iTwin();
    const [composed, decomposed] = ['\u00c9t\u00e9', '\u00c9t\u00e9'.normalize('NFD')];
    const ids: Record<string, string> = {};
    for (const name of ['alone', 'taken', 'twice'] as const)
      ids[name] = (await makeIModel(context.olivia, iTwinId, { name })).id;
    // As an earlier version stored them.
    const store = (name: string, text: string) =>
      db
        .updateTable('imodel')
        .set({ name: text, name_order: text.toLowerCase(), search_text: `${text.toLowerCase()}\n` })
        .where('id', '=', ids[name] ?? '')
        .execute();
    await store('alone', `${decomposed} 1`);
    await store('taken', `${composed} 2`);
    await store('twice', `${decomposed} 2`);
    await sql`drop table repeatable_request`.execute(db);
    await idempotencyMigration(engine).up(db);
    const nameOf = async (name: string) =>
      ((await context.api.get(`/imodels/${ids[name]}`)).body as { iModel: { name: string } }).iModel.name;
    assert.deepEqual(
      [await nameOf('alone'), await nameOf('taken'), await nameOf('twice')],
      [`${composed} 1`, `${composed} 2`, `${decomposed} 2`],
    );
    const { iModels } = (
      await context.api.get(`/imodels?iTwinId=${iTwinId}&$search=${encodeURIComponent(`${decomposed} 1`)}`)
    ).body as { iModels: unknown[] };
    assert.equal(iModels.length, 1);
  });

  test('invisible names, and control characters in names and descriptions, are refused everywhere', async () => {
    const made = await makeIModel(context.olivia, context.iTwinId, { changesets: 1 });
    const before = await rows();
    const share = { permission: 'imodels_read', expiresAt: new Date(Date.now() + 86_400_000).toISOString() };
    const at = `/imodels/${made.id}`;
    const control = `/accesscontrol/itwins/${context.iTwinId}`;
    const named: [send: (text: string) => Promise<{ status: number; body: unknown }>, target: string][] = [
      [(name) => context.api.post('/imodels', { iTwinId: context.iTwinId, name }), 'name'],
      [(name) => context.api.patch(at, { name }), 'name'],
      [(name) => context.api.post(`${at}/clone`, { iTwinId: context.iTwinId, name }), 'name'],
      [(name) => context.api.post(`${at}/fork`, { iTwinId: context.iTwinId, name }), 'name'],
      [(name) => context.api.post(`${at}/namedversions`, { name }), 'name'],
      [(name) => context.api.post(`${at}/shares`, { ...share, name }), 'name'],
      [
        (displayName) => context.api.post('/itwins', { displayName, class: 'Endeavor', subClass: 'Project' }),
        'displayName',
      ],
      [(displayName) => context.api.post(`${control}/roles`, { displayName, permissions: [] }), 'displayName'],
      [(name) => context.api.post(`${control}/groups`, { name }), 'name'],
    ];
    for (const [send, target] of named)
      for (const text of [
        '\u200b',
        '\u200b\u2060\ufeff',
        '\u00ad',
        '\u3164',
        '\u2800',
        '\u00a0 ',
        'a\u0007b',
        'a\nb',
        'a\u0085',
        'a\u2028b',
        '\u007f',
      ]) {
        const answer = await send(text);
        assert.deepEqual(
          [answer.status, (answer.body as WireError).error.details?.[0]?.target],
          [422, target],
          `${target} ${JSON.stringify(text)}`,
        );
      }
    const described: ((text: string) => Promise<{ status: number }>)[] = [
      (description) => context.api.post('/imodels', { iTwinId: context.iTwinId, name: randomUUID(), description }),
      (description) => context.api.post(`${at}/clone`, { iTwinId: context.iTwinId, name: randomUUID(), description }),
      (description) => context.api.post(`${at}/namedversions`, { name: randomUUID(), description }),
      (description) => context.api.post(`${at}/changesetgroups`, { description }),
      (description) =>
        context.api.post(`${control}/roles`, { displayName: randomUUID(), permissions: [], description }),
      (deviceName) => context.api.post(`${at}/briefcases`, { deviceName }),
    ];
    for (const send of described) assert.equal((await send('bell \u0007')).status, 422);
    assert.deepEqual(await rows(), before);
    const lines = await context.api.patch(at, { description: 'two\r\n\tlines' });
    assert.equal((lines.body as { iModel: { description: string } }).iModel.description, 'two\r\n\tlines');
    assert.equal(
      (
        await context.api.patch(at, {
          name: '\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \ud83d\udc68\u200d\ud83d\udc69',
        })
      ).status,
      200,
    );
  });

  test('unknown query options are refused on every route, and known ones match case-insensitively', async () => {
    const made = await makeIModel(context.olivia, context.iTwinId);
    for (const route of routes.filter(({ method }) => method === 'GET')) {
      const url = route.path
        .replace(':iTwinId', context.iTwinId)
        .replace(':iModelId', made.id)
        .replace(':changeset', '0')
        .replace(/:\w+/g, 'x');
      const answer = await context.api.get(`${url}?iTwinId=${context.iTwinId}&$nonsense=1`);
      const { error } = answer.body as WireError;
      // An unknown resource in the path may be reported first.
      const told =
        error.details?.some(({ code, target }) => code === 'InvalidParameter' && target === '$nonsense') === true;
      assert.ok(
        told || (answer.status === 404 && route.path.replace(/:(iTwinId|iModelId|changeset)/g, '').includes(':')),
        `${route.operationId} answers ${answer.status} ${JSON.stringify(answer.body)}`,
      );
      if (
        (route.query as { properties?: object } | undefined)?.properties !== undefined &&
        '$top' in (route.query as { properties: object }).properties
      ) {
        const top = await context.api.get(`${url}?ITWINID=${context.iTwinId}&afterChangesetIndex=0&$TOP=0`);
        assert.ok(top.status === 422 || top.status === 404, `${route.operationId} ignores $TOP: ${top.status}`);
        const twice = await context.api.get(`${url}?itwinid=${context.iTwinId}&afterChangesetIndex=0&$top=1&$Top=2`);
        assert.ok(
          twice.status === 422 || twice.status === 404,
          `${route.operationId} takes $top twice: ${twice.status}`,
        );
      }
    }
  });

  test('forged continuation tokens give 422, never a 5xx', async () => {
    const token = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');
    const made = await makeIModel(context.olivia, context.iTwinId);
    for (const value of [
      null,
      5,
      [],
      ['created_at+id+', 0],
      ['created_at+id+', 0, 'x', 'y'],
      ['created_at+id+', 0, 1.5, 'y'],
      ['created_at+id+', 2, 1, 'y'],
      ['created_at+id+', 0, 1, 'a\0'],
      { a: 1 },
    ]) {
      const answer = await context.api.get(`/imodels?iTwinId=${context.iTwinId}&$continuationToken=${token(value)}`);
      assert.equal(answer.status, 422, JSON.stringify(value));
    }
    assert.equal(
      (await context.api.get(`/imodels/${made.id}/changesets?$continuationToken=${token(['index+', 0, 9])}`)).status,
      200,
    );
  });

  test('a body above 1 MiB is refused with 413', async () => {
    const answer = await context.api.post('/imodels', {
      iTwinId: context.iTwinId,
      name: 'x',
      filler: 'f'.repeat(1024 * 1024),
    });
    assert.deepEqual([answer.status, (answer.body as WireError).error.code], [413, 'RequestTooLarge']);
  });

  test('an unknown address answers 404 in the error envelope', async () => {
    for (const url of [
      '/imodels/a/b/c/d',
      '/nothing',
      '/imodels/../../etc/passwd',
      '/storage/blobs',
      '/storage/blobs/x/y/z',
    ]) {
      const answer = await context.api.get(url);
      assert.equal(answer.status, 404, url);
      assert.equal((answer.body as WireError).error.code, 'NotFound');
    }
  });

  test('an unknown address answers 404 in the error envelope, whatever is sent to it', async () => {
    const bodies: [body: string | Uint8Array | undefined, contentType: string][] = [
      [undefined, 'application/json'],
      ['{', 'application/json'],
      ['{"__proto__": 1}', 'application/json'],
      ['x'.repeat(2_000_000), 'application/json'],
      ['a=b', 'application/x-www-form-urlencoded'],
      ['x', 'no type at all'],
    ];
    for (const method of ['GET', 'POST', 'PUT', 'PATCH', 'DELETE'])
      for (const [body, contentType] of bodies) {
        if (method === 'GET' && body !== undefined) continue;
        for (const url of ['/nothing', '/imodels/a/b/c/d', '/', '/docs/x', '/health/x', '/openapi.json/x']) {
          if (url === '/' && method === 'GET') continue;
          const answer = await context.api.send(method, url, body, { 'content-type': contentType });
          assert.deepEqual(
            [answer.status, (answer.body as WireError).error?.code],
            [404, 'NotFound'],
            `${method} ${url} ${contentType}`,
          );
        }
      }
  });

  test('requests that the HTTP parser refuses get the error envelope, and the server keeps running', async () => {
    const refused = async (request: string, status: number, code: string): Promise<void> => {
      const answer = await raw(request);
      const [head = '', body = ''] = answer.split('\r\n\r\n');
      assert.match(head, new RegExp(`^HTTP/1\\.1 ${status} `), answer);
      assert.match(head, /content-type: application\/json/i);
      assert.equal((JSON.parse(body) as WireError).error.code, code);
    };
    await refused('GARBAGE\r\n\r\n', 400, 'BadRequest');
    await refused(
      `GET /itwins HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${'a'.repeat(40_000)}\r\n\r\n`,
      431,
      'RequestHeadersTooLarge',
    );
    await refused('GET /imodels/%zz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n', 400, 'BadRequest');
    await refused('GET /imodels/%ff HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n', 400, 'BadRequest');
    await refused('GET /itwins HTTP/1.1\r\nConnection: close\r\n\r\n', 400, 'BadRequest');
    await refused(
      'POST /itwins HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n',
      400,
      'BadRequest',
    );
    await refused(
      'GET /itwins HTTP/1.1\r\nHost: x\r\nExpect: everything\r\nConnection: close\r\n\r\n',
      417,
      'ExpectationFailed',
    );
    await refused('PROPFIND /itwins HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n', 404, 'NotFound');
    await refused('GET /itwins HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n', 401, 'HeaderNotFound');
    const token = await context.server.token('olivia');
    await refused(
      `POST /itwins HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${token}\r\nContent-Type: nonsense\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}`,
      422,
      'InvalidiTwinsRequest',
    );
    assert.match(await raw('OPTIONS /itwins HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'), /^HTTP\/1\.1 204/);
    assert.equal((await context.api.get('/itwins')).status, 200);
  });

  test('path words match case-insensitively, ids and names exactly', async () => {
    const made = await makeIModel(context.olivia, context.iTwinId, { changesets: 1 });
    for (const url of [
      `/iTwins/${context.iTwinId}`,
      `/iModels/${made.id}`,
      `/IMODELS/${made.id.toUpperCase()}`,
      `/iModels?iTwinId=${context.iTwinId}`,
      `/iModels/${made.id}/namedVersions`,
      `/iModels/${made.id}/Changesets/1/Checkpoint`,
      `/accessControl/iTwins/${context.iTwinId}/roles`,
    ]) {
      const answer = await context.api.get(url);
      const expected = await context.api.get(
        url.replace(/\/(itwins|imodels|namedversions|changesets|checkpoint|accesscontrol)/gi, (word) =>
          word.toLowerCase(),
        ),
      );
      assert.equal(answer.status, expected.status, url);
    }
    const { iModel } = (await context.api.get(`/iModels/${made.id}`)).body as {
      iModel: { _links: { changesets: { href: string } } };
    };
    assert.ok(iModel._links.changesets.href.endsWith(`/imodels/${made.id}/changesets`));
    const upload = await context.api.post('/iModels', {
      iTwinId: context.iTwinId,
      name: `Any Case ${randomUUID()}`,
      baselineFile: { size: 4 },
    });
    const { href } = (upload.body as { iModel: { _links: { upload: { href: string } } } }).iModel._links.upload;
    assert.equal(
      (await fetch(href, { method: 'PUT', headers: { 'x-ms-blob-type': 'BlockBlob' }, body: 'none' })).status,
      201,
    );
  });

  test('an empty iTwin id, unknown flags and the object 0x0 are refused with 422', async () => {
    const made = await makeIModel(context.olivia, context.iTwinId, { changesets: 1 });
    const target = (answer: { body: unknown }): string | undefined =>
      (answer.body as WireError).error.details?.[0]?.target;
    const body = { iTwinId: context.iTwinId, name: randomUUID() };
    const push = {
      id: randomBytes(20).toString('hex'),
      parentId: made.changesets[0]?.id,
      briefcaseId: made.briefcaseId,
      fileSize: 1,
    };
    const lock = (objectIds: string[]) =>
      context.api.patch(`/imodels/${made.id}/locks`, {
        briefcaseId: made.briefcaseId,
        changesetId: made.changesets[0]?.id,
        lockedObjects: [{ lockLevel: 'shared', objectIds }],
      });
    for (const [answer, property] of [
      [await context.api.post('/imodels', { ...body, iTwinId: '' }), 'iTwinId'],
      [await context.api.post(`/imodels/${made.id}/clone`, { ...body, iTwinId: '' }), 'iTwinId'],
      [await context.api.post(`/imodels/${made.id}/fork`, { ...body, iTwinId: '' }), 'iTwinId'],
      [await context.api.get('/imodels?iTwinId='), 'iTwinId'],
      [await context.api.post('/imodels', { ...body, containersEnabled: 8 }), 'containersEnabled'],
      [await context.api.post(`/imodels/${made.id}/clone`, { ...body, containersEnabled: 8 }), 'containersEnabled'],
      [
        await context.api.post(`/imodels/${made.id}/changesets`, { ...push, containingChanges: 128 }),
        'containingChanges',
      ],
      [await lock(['0x0']), 'lockedObjects'],
      [await lock(['0x1', '0x000']), 'lockedObjects'],
    ] as const)
      assert.deepEqual([answer.status, target(answer)], [422, property]);
    assert.equal((await context.api.post('/imodels', { ...body, containersEnabled: 7 })).status, 201);
    assert.equal(
      (await context.api.post(`/imodels/${made.id}/changesets`, { ...push, containingChanges: 65 })).status,
      201,
    );
    // The same object in different notations of its id.
    assert.equal((await lock(['0x00A', '0xa'])).status, 422);
    const answer = await lock(['0x00A']);
    assert.equal(answer.status, 200, JSON.stringify(answer.body));
    const taken = answer.body as { lock: { lockedObjects: { objectIds: string[] }[] } };
    assert.deepEqual(
      taken.lock.lockedObjects.map(({ objectIds }) => objectIds),
      [['0xa']],
    );
  });

  test('an invalid Host header never appears in links', async () => {
    const made = await makeIModel(context.olivia, context.iTwinId);
    const token = await context.server.token('olivia');
    const answer = await raw(
      `GET /imodels/${made.id} HTTP/1.1\r\nHost: evil.example/path?"<x>\r\nAuthorization: Bearer ${token}\r\nConnection: close\r\n\r\n`,
    );
    assert.ok(!answer.includes('evil.example/path'));
  });
});
