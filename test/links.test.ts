import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { ConfigInput } from '../apps/server/src/config.ts';
import { makeIModel, official } from './support/clients.ts';
import { bootServer, endServer } from './support/server.ts';

/** Every address in the answers that clients follow or parse ids from. */
async function addresses(config: ConfigInput, headers: Record<string, string> = {}): Promise<string[]> {
  const server = await bootServer('sqlite', config);
  try {
    const api = await server.as('olivia');
    // The official client follows links, which this test points elsewhere.
    const plain = await official(server);
    const { body } = await api.post(
      '/imodels',
      { iTwinId: await server.iTwin(), name: 'linked', baselineFile: { size: 512 } },
      headers,
    );
    const { iModel } = body as { iModel: { id: string; _links: Record<string, { href: string }> } };
    const empty = await makeIModel(plain, await server.iTwin());
    const cloned = await api.post(`/imodels/${empty.id}/clone`, { iTwinId: await server.iTwin() }, headers);
    const briefcase = (await api.post(`/imodels/${empty.id}/briefcases`, {}, headers)).body as {
      briefcase: { _links: Record<string, { href: string }> };
    };
    const list = (await api.get(`/imodels/${empty.id}/changesets`, headers)).body as {
      _links: { self: { href: string } };
    };
    return [
      ...Object.values(iModel._links).map(({ href }) => href),
      ...Object.values(briefcase.briefcase._links).map(({ href }) => href),
      list._links.self.href,
      cloned.headers.get('location') ?? '',
      cloned.headers.get('create-imodel-operation') ?? '',
    ];
  } finally {
    await endServer(server);
  }
}

describe('Links', () => {
  test('use the address that the client used', async () => {
    for (const href of await addresses({})) assert.match(href, /^http:\/\/localhost:\d+\//);
  });

  test('use the public address where one is configured', async () => {
    for (const href of await addresses({ publicUrl: 'https://imodels.example.com/hub' }))
      assert.ok(href.startsWith('https://imodels.example.com/hub/'), href);
  });

  test('use proxy headers only when the configuration trusts the proxy', async () => {
    const forwarded = { 'x-forwarded-proto': 'https', 'x-forwarded-host': 'proxy.example' };
    for (const href of await addresses({ trustProxy: true }, forwarded))
      assert.ok(href.startsWith('https://proxy.example/'), href);
    const below = { ...forwarded, 'x-forwarded-prefix': '/hub/', 'x-forwarded-port': '8443' };
    for (const href of await addresses({ trustProxy: true }, below))
      assert.ok(href.startsWith('https://proxy.example:8443/hub/'), href);
    const usual = {
      ...forwarded,
      'x-forwarded-host': 'proxy.example:9000',
      'x-forwarded-port': '443',
      'x-forwarded-prefix': '/a/b, /inner',
    };
    for (const href of await addresses({ trustProxy: true }, usual))
      assert.ok(href.startsWith('https://proxy.example:9000/a/b/'), href);
    const hostile = { ...forwarded, 'x-forwarded-prefix': '//evil.example/"<x>', 'x-forwarded-port': '99999' };
    for (const href of await addresses({ trustProxy: true }, hostile))
      assert.ok(href.startsWith('https://proxy.example/'), href);
    for (const href of await addresses({}, below)) assert.match(href, /^http:\/\/localhost:\d+\//);
    for (const href of await addresses({}, forwarded)) assert.match(href, /^http:\/\/localhost:\d+\//);
  });

  test('contain /imodels/ before the id and no query where clients parse ids from them', async () => {
    const found = await addresses({});
    for (const href of found.filter((address) => !address.includes('/storage/')))
      assert.match(href, /^http:\/\/localhost:\d+\/imodels\/[0-9a-f-]{36}(\/[^?]*)?$/);
  });
});
