/** A server without iTwin.js, whose viewers a separate back end answers. */
import assert from 'node:assert/strict';
import { registerHooks } from 'node:module';
import { test } from 'node:test';
import { iTwinJsVersion } from '../apps/server/src/checkpoints/itwinjs/itwinjsVersion.ts';
import { release, releaseHeader } from '../apps/server/src/viewer/protocol.ts';
import type { WireError } from './support/api.ts';
import { bootServer, endServer } from './support/server.ts';
import { makeViewable, startBackend } from './support/viewBackend.ts';
import { send, tile } from './support/viewerCalls.ts';

registerHooks({
  resolve(specifier, context, next) {
    if (specifier === '@itwin/core-backend') throw new Error('it is not installed');
    return next(specifier, context);
  },
});

test('a server without iTwin.js keeps tiles under the version of iTwin.js that its back end names', async () => {
  assert.equal(iTwinJsVersion(), '');
  let version = '5.9.0';
  let answered = 0;
  const backend = await startBackend((_request, response) => {
    answered++;
    response.writeHead(200, { [releaseHeader]: `${release()}${version}`, 'content-type': 'application/json' });
    response.end(`{"madeBy":"${version}"}`);
  });
  const server = await bootServer('sqlite', { viewer: backend.config });
  try {
    const { viewer } = server.services;
    const place = await makeViewable(server);
    const content = `b-${place.baselineId}-0-`;
    const api = await server.as('olivia');
    const treeOf = async (): Promise<unknown> => {
      const { status, body } = await send(api, place, `${tile}requestTileTreeProps`, ['25_11-0x1c']);
      assert.equal(status, 200, JSON.stringify(body));
      return body;
    };
    /** Removes what the collector does not know, or takes for tiles of another version. */
    const tidy = (): Promise<void> => viewer.tidyTiles({ thorough: true, removed: true }, new AbortController().signal);

    for (let n = 0; n < 3; n++) {
      assert.deepEqual(await treeOf(), { madeBy: '5.9.0' });
      await tidy();
      assert.deepEqual(await viewer.tiles.contents(), [`${content}5.9.0`]);
    }
    assert.equal(answered, 1, 'the tree was made again');

    // The back end is started again with another version, which the server learns from its next answer.
    version = '5.10.0-dev.1';
    assert.equal((await send(api, place, `${tile}queryVersionInfo`)).status, 200);
    assert.deepEqual(await treeOf(), { madeBy: version });
    await tidy();
    assert.deepEqual(await viewer.tiles.contents(), [`${content}${version}`]);

    for (version of ['', '5', '../../5.9.0', `5.9.${'0'.repeat(50)}`]) {
      const { status, body } = await send(api, place, `${tile}queryVersionInfo`);
      assert.deepEqual([status, (body as WireError).error.code], [500, 'ViewerBackendUnusable'], version);
    }
    assert.deepEqual(await treeOf(), { madeBy: '5.10.0-dev.1' });
  } finally {
    await endServer(server);
    backend.close();
  }
});
