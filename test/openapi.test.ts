import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { errorsOf } from '../apps/server/src/api/document.ts';
import { routes } from '../apps/server/src/api/routes.ts';
import { errorTable } from '../apps/server/src/errors.ts';
import { Api } from './support/api.ts';
import { bootServer, endServer, type TestServer } from './support/server.ts';

interface Operation {
  operationId: string;
  summary: string;
  description: string;
  requestBody?: { content: Record<string, { schema: { required?: string[]; properties: Record<string, unknown> } }> };
  parameters?: { name: string; in: string }[];
  responses: Record<string, { description: string; headers?: Record<string, unknown> }>;
}

describe('The API document', () => {
  let server: TestServer;
  let document: { openapi: string; paths: Record<string, Record<string, Operation>> };

  before(async () => {
    server = await bootServer('sqlite');
    document = (await new Api(server.origin).get('/openapi.json')).body as typeof document;
  });
  after(() => endServer(server));

  test('is OpenAPI 3.1 and contains every route with its permission and all its error codes', () => {
    assert.match(document.openapi, /^3\.1\./);
    for (const route of routes) {
      const operation = document.paths[route.path.replace(/:(\w+)/g, '{$1}')]?.[route.method.toLowerCase()];
      assert.equal(operation?.operationId, route.operationId);
      assert.match(operation?.description ?? '', /Permission: /);
      assert.ok(operation?.responses[route.response.status], route.operationId);
      for (const code of errorsOf(route))
        assert.match(
          operation?.responses[errorTable[code][0]]?.description ?? '',
          new RegExp(code),
          `${route.operationId} ${code}`,
        );
    }
    const count = Object.values(document.paths).flatMap((path) => Object.keys(path)).length;
    assert.equal(count, routes.length);
  });

  test('describes Clone with the schema that validates it and the headers of its answer', () => {
    const clone = document.paths['/imodels/{iModelId}/clone']?.['post'];
    const schema = clone?.requestBody?.content['application/json']?.schema;
    assert.deepEqual(schema?.required, ['iTwinId']);
    assert.deepEqual(Object.keys(schema?.properties ?? {}).toSorted(), [
      'changesetId',
      'changesetIndex',
      'containersEnabled',
      'description',
      'iTwinId',
      'name',
    ]);
    assert.deepEqual(Object.keys(clone?.responses['202']?.headers ?? {}).toSorted(), [
      'Create-iModel-Operation',
      'Location',
    ]);
  });

  test('has a readable page that loads nothing from other origins', async () => {
    const page = await fetch(`${server.origin}/docs/`);
    const html = await page.text();
    assert.equal(page.status, 200);
    const sources = [...html.matchAll(/(?:src|href)="([^"]+)"/g)].map((match) => match[1] as string);
    assert.ok(sources.some((source) => source.endsWith('.js')));
    for (const source of sources) {
      const url = new URL(source, `${server.origin}/docs/`);
      assert.equal(url.origin, server.origin, source);
      if (source.endsWith('.js')) assert.equal((await fetch(url)).status, 200);
    }
  });

  test('documents the wait for each 429 and 503, and how to repeat each POST', () => {
    for (const route of routes) {
      const operation = document.paths[route.path.replace(/:(\w+)/g, '{$1}')]?.[route.method.toLowerCase()];
      for (const status of ['429', '503'])
        assert.ok(operation?.responses[status]?.headers?.['Retry-After'], `${route.operationId} ${status}`);
      const repeatable =
        operation?.parameters?.some(({ name, in: place }) => place === 'header' && name === 'idempotency-key') ?? false;
      assert.equal(repeatable, route.method === 'POST', route.operationId);
    }
  });

  test('and its page work below the path prefix of a proxy', async () => {
    const below = await bootServer('sqlite', { publicUrl: 'https://imodels.example.com/hub' });
    try {
      const get = (path: string) => fetch(`${below.origin}${path}`, { redirect: 'manual' });
      for (const path of ['/', '/docs'])
        assert.equal((await get(path)).headers.get('location'), 'https://imodels.example.com/hub/docs/');
      const page = await (await get('/docs/')).text();
      const base = 'https://imodels.example.com/hub/docs/';
      const named = /"url":\s*"([^"]*openapi[^"]*)"/.exec(page)?.[1] ?? '';
      assert.equal(new URL(named, base).href, 'https://imodels.example.com/hub/openapi.json');
      const script = /src="([^"]*scalar[^"]*)"/.exec(page)?.[1] ?? '';
      assert.equal(new URL(script, base).href, 'https://imodels.example.com/hub/docs/js/scalar.js');
      assert.deepEqual(((await (await get('/openapi.json')).json()) as { servers: unknown }).servers, [
        { url: 'https://imodels.example.com/hub' },
      ]);
      assert.equal((await (await fetch(`${server.origin}/docs`)).text()).includes('<html'), true);
    } finally {
      await endServer(below);
    }
  });

  test('and the health endpoints are public', async () => {
    const { status, body } = await new Api(server.origin).get('/health');
    assert.deepEqual([status, (body as { status: string }).status], [200, 'ok']);
  });

  test('answers CORS preflights, and browsers can read the headers of Clone', async () => {
    const preflight = await fetch(`${server.origin}/imodels/x/clone`, {
      method: 'OPTIONS',
      headers: {
        origin: 'http://app.example',
        'access-control-request-method': 'POST',
        'access-control-request-headers': 'authorization,content-type,prefer',
      },
    });
    assert.equal(preflight.status, 204);
    assert.equal(preflight.headers.get('access-control-allow-origin'), '*');
    assert.match(preflight.headers.get('access-control-allow-headers') ?? '', /authorization/);
    const answer = await fetch(`${server.origin}/itwins`, { headers: { origin: 'http://app.example' } });
    assert.match(
      answer.headers.get('access-control-expose-headers') ?? '',
      /Location, Create-iModel-Operation, Retry-After/,
    );
  });
});
