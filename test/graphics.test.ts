import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { before, test } from 'node:test';
import { brotliDecompressSync } from 'node:zlib';
import { ThumbnailSize } from '@itwin/imodels-client-management';
import sharp from 'sharp';
import { isITwinJsInstalled } from '../apps/server/src/checkpoints/itwinjs/workerProcess.ts';
import { collect } from '../apps/server/src/collector/collect.ts';
import type { ConfigInput } from '../apps/server/src/config.ts';
import { verify } from '../apps/server/src/maintenance/verify.ts';
import { Api, type WireError } from './support/api.ts';
import { makeIModel } from './support/clients.ts';
import { bytesAt, ended, gltfIn, graphicsOf, makeModel, tableOf, type Graphics } from './support/graphics.ts';
import { otherStore, people } from './support/server.ts';
import { onEachStore, onOneDatabase, type Context } from './support/suite.ts';
import { until } from './support/until.ts';

const skip = isITwinJsInstalled() ? false : 'iTwin.js is not installed';
const config = {
  checkpoints: { generate: 'auto' as const, delaySeconds: 0, firstRetrySeconds: 0 },
  graphics: { enabled: true },
} satisfies ConfigInput;

/** Creates an iModel with geometry from a file. */
function makePlant({ olivia, iTwinId }: Context, elements: number, kind = '3d'): Promise<string> {
  return makeModel(olivia, iTwinId, 'plantProcess.ts', [String(elements), kind]);
}

/** Different colours in a picture, roughly. */
async function coloursIn(png: Buffer): Promise<number> {
  const { data } = await sharp(png).removeAlpha().resize(80, 50).raw().toBuffer({ resolveWithObject: true });
  const found = new Set<number>();
  for (let n = 0; n < data.length; n += 3)
    found.add(((data[n] as number) >> 5) * 64 + ((data[n + 1] as number) >> 5) * 8 + ((data[n + 2] as number) >> 5));
  return found.size;
}

onEachStore('Graphics', config, (context) => {
  let plant: string;
  const thumbnail = async (iModelId: string, size = ThumbnailSize.Large): Promise<Buffer> => {
    const { client, authorization } = context.olivia;
    return Buffer.from((await client.thumbnails.download({ authorization, iModelId, urlParams: { size } })).image);
  };
  const clone = async (iModelId: string): Promise<string> => {
    const { client, authorization } = context.olivia;
    return (
      await client.iModels.clone({
        authorization,
        iModelId,
        iModelProperties: { iTwinId: context.iTwinId, name: randomUUID() },
      })
    ).id;
  };
  const remove = (iModelId: string): Promise<void> =>
    context.olivia.client.iModels.delete({ authorization: context.olivia.authorization, iModelId });
  const storedBytes = async (): Promise<number> => {
    const { database } = context.server.services;
    const rows = await database.db.selectFrom('blob').select('size').execute();
    return rows.reduce((sum, { size }) => sum + size, 0);
  };
  const collectAll = async (): Promise<void> => {
    const { database, blobs } = context.server.services;
    const seeds = await database.db.selectFrom('baseline').select('id').where('id', 'like', 'seed-%').execute();
    await collect(database, blobs.stores, {
      graceMs: 0,
      uploadLifeMs: -1000,
      groupLifeMs: 3_600_000,
      seeds: new Map(seeds.map(({ id }) => [blobs.stores.home.id, id])),
      thorough: true,
    });
  };
  const filesOfGraphics = async (): Promise<number> =>
    (await context.server.services.database.db.selectFrom('graphics_file').select('blob_id').execute()).length;

  before(async () => {
    if (skip === false) plant = await makePlant(context, 200);
  });

  test('are drawn after the checkpoint, with every element, its place and its appearance', { skip }, async () => {
    const graphics = await ended(context.api, plant);
    assert.equal(graphics.state, 'successful', graphics.error?.message);
    assert.deepEqual([graphics.changesetIndex, graphics.changesetId, graphics.error], [0, '', null]);
    const { summary } = graphics;
    assert.ok(summary !== null && summary.triangles > 1000);
    assert.deepEqual([summary.elements, summary.omittedElements, summary.is2d], [200, 0, false]);

    const table = await tableOf(graphics);
    assert.deepEqual(table.classes, ['Generic:PhysicalObject']);
    assert.deepEqual(table.models.map(({ label }) => label).sort(), ['Equipment', 'Piping', 'Structure']);
    assert.equal(table.categories.length, 7);
    for (const column of Object.values(table.elements)) assert.equal(column.length, 200);
    assert.ok(table.elements.hash.every((hash) => typeof hash === 'string'));
    assert.match(String(table.elements.label[0]), /^element (?:0|100)$/, 'the slabs are the largest elements');

    let triangles = 0;
    const kinds = new Set<string>();
    for (const chunk of graphics.chunks) {
      const { asset, nodes, meshes, accessors } = gltfIn(await bytesAt(chunk.href));
      assert.equal(asset.version, '2.0');
      for (const node of nodes) {
        const [primitive] = meshes[node.mesh]?.primitives ?? [];
        assert.ok(primitive !== undefined);
        const instancing = node.extensions?.['EXT_mesh_gpu_instancing'] as
          { attributes: Record<string, number> } | undefined;
        const features = accessors[(instancing?.attributes ?? primitive.attributes)['_FEATURE'] ?? -1];
        assert.ok(features !== undefined, 'each vertex or instance names its element');
        const count = accessors[primitive.indices]?.count ?? 0;
        if (primitive.mode === 4) triangles += (count / 3) * (instancing === undefined ? 1 : features.count);
        kinds.add(`${primitive.mode}${instancing === undefined ? '' : ' instanced'}`);
      }
    }
    assert.equal(triangles, summary.triangles);
    assert.deepEqual([...kinds].sort(), ['1', '4', '4 instanced']);
  });

  test(
    'are sent compressed to clients that accept it and plain to others, under links that stay the same',
    { skip },
    async () => {
      const graphics = await ended(context.api, plant);
      const [{ href, size }] = graphics.chunks as [Graphics['chunks'][0]];
      assert.equal((await graphicsOf(context.api, plant)).chunks[0]?.href, href);
      const compressed = await fetch(href, { headers: { 'accept-encoding': 'gzip, br' } });
      assert.deepEqual(
        ['content-encoding', 'content-type', 'content-length'].map((name) => compressed.headers.get(name)),
        ['br', 'model/gltf-binary', String(size)],
      );
      const bytes = Buffer.from(await compressed.arrayBuffer());
      assert.deepEqual(await bytesAt(href, 'br;q=0, identity'), bytes);
      assert.equal((await fetch(href.replace(/sig=.{5}/, 'sig=aaaaa'))).status, 403);
      const tag = compressed.headers.get('etag') ?? '';
      assert.equal((await fetch(href, { headers: { 'accept-encoding': 'br', 'if-none-match': tag } })).status, 304);
      const stored = await context.server.services.blobs.findReadable(/graphics\/([^/]+)/.exec(href)?.[1] ?? '');
      assert.ok(stored !== undefined);
      const raw: Buffer[] = [];
      for await (const chunk of await context.server.services.blobs.read(stored)) raw.push(chunk as Buffer);
      assert.deepEqual(brotliDecompressSync(Buffer.concat(raw)), bytes);
    },
  );

  test('are open to the holder of a share until it is revoked', { skip }, async () => {
    await ended(context.api, plant);
    const made = await context.api.post(`/imodels/${plant}/shares`, {
      name: 'graphics',
      permission: 'imodels_webview',
      expiresAt: new Date(Date.now() + 3_600_000).toISOString(),
    });
    const { share } = made.body as { share: { id: string; shareKey: string } };
    const { body } = await new Api(context.server.origin).get(`/imodels/${plant}/changesets/0/graphics`, {
      authorization: `Basic ${share.shareKey}`,
    });
    const { chunks, elements } = (body as { graphics: Graphics }).graphics;
    const links = [chunks[0]?.href ?? '', elements?.href ?? ''];
    const statuses = () => Promise.all(links.map(async (link) => (await fetch(link)).status));
    assert.deepEqual(await statuses(), [200, 200]);
    await context.api.delete(`/imodels/${plant}/shares/${share.id}`);
    assert.deepEqual(await statuses(), [403, 403]);
  });

  test('give the thumbnail, unless a user uploads one', { skip }, async () => {
    await ended(context.api, plant);
    const drawn = await thumbnail(plant);
    const { format, width, height } = await sharp(drawn).metadata();
    assert.deepEqual([format, width, height], ['png', 800, 500]);
    assert.ok((await coloursIn(drawn)) > 8);
    const small = await sharp(await thumbnail(plant, ThumbnailSize.Small)).metadata();
    assert.deepEqual([small.width, small.height], [400, 250]);

    const own = await clone(plant);
    assert.deepEqual(await thumbnail(own), drawn, 'a clone has the picture at once');
    const red = await sharp({ create: { width: 500, height: 500, channels: 3, background: 'red' } })
      .png()
      .toBuffer();
    await context.olivia.client.thumbnails.upload({
      authorization: context.olivia.authorization,
      iModelId: own,
      thumbnailProperties: { imageType: 'image/png' as never, image: Uint8Array.from(red) },
    });
    const uploaded = await thumbnail(own);
    assert.notDeepEqual(uploaded, drawn);
    const { client, authorization } = context.olivia;
    await client.namedVersions
      .create({ authorization, iModelId: own, namedVersionProperties: { name: 'now' } })
      .catch(() => undefined);
    assert.equal((await context.api.put(`/imodels/${own}/changesets/0/graphics`, {})).status, 202);
    assert.deepEqual(await thumbnail(own), uploaded);
    assert.deepEqual(await thumbnail(plant), drawn);
  });

  test(
    'belong to a clone at once without any further byte, and stay when the source is deleted',
    { skip },
    async () => {
      const source = await makePlant(context, 150);
      const before = await ended(context.api, source);
      const bytes = await storedBytes();
      const copy = await clone(source);
      const ofCopy = await graphicsOf(context.api, copy);
      assert.deepEqual(ofCopy, before);
      assert.equal(await storedBytes(), bytes);
      await remove(source);
      await collectAll();
      assert.deepEqual((await graphicsOf(context.api, copy)).summary, before.summary);
      gltfIn(await bytesAt(ofCopy.chunks[0]?.href ?? ''));
      const files = await filesOfGraphics();
      await remove(copy);
      await collectAll();
      await collectAll();
      assert.ok((await filesOfGraphics()) < files, 'the collector removes what nothing refers to');
      const { database, blobs } = context.server.services;
      const { faults, orphans } = await verify(database.db, blobs.stores, true);
      assert.deepEqual([faults, orphans], [[], {}]);
      assert.equal((await fetch(ofCopy.chunks[0]?.href ?? '')).status, 404);
    },
  );

  test('of equal content are stored once', { skip }, async () => {
    const { database } = context.server.services;
    await ended(context.api, plant);
    const blobIds = async (): Promise<number> =>
      new Set((await database.db.selectFrom('graphics_file').select('blob_id').execute()).map(({ blob_id }) => blob_id))
        .size;
    const before = await blobIds();
    const again = await makePlant(context, 200);
    const drawn = await ended(context.api, again);
    // Element ids are the same, too.
    assert.equal(drawn.state, 'successful');
    assert.equal(await blobIds(), before);
    await remove(again);
  });

  test(
    'of a changeset are made on request with its checkpoint, and are refused to whoever may not',
    { skip },
    async () => {
      const id = await clone(plant);
      assert.equal((await context.api.get(`/imodels/${id}/changesets/1/graphics`)).status, 404);
      const viewer = await context.server.as('max');
      assert.equal((await viewer.get(`/imodels/${id}/changesets/0/graphics`)).status, 404);
      await context.server.grant(context.iTwinId, 'max', ['imodels_webview']);
      assert.equal((await graphicsOf(viewer, id)).state, 'successful');
      assert.equal((await viewer.put(`/imodels/${id}/changesets/0/graphics`, {})).status, 403);
      const empty = await makeIModel(context.olivia, context.iTwinId);
      assert.equal((await graphicsOf(context.api, empty.id)).state, 'none');
      assert.equal((await context.api.put(`/imodels/${empty.id}/changesets/0/graphics`, {})).status, 202);
      const { state, summary, chunks } = await ended(context.api, empty.id);
      assert.deepEqual([state, summary?.elements, summary?.bounds, chunks], ['successful', 0, null, []]);
      // Requested a second time, graphics that exist are left as they are, and nothing is recorded.
      assert.equal((await context.api.put(`/imodels/${empty.id}/changesets/0/graphics`, {})).status, 202);
      const entries = await context.server.services.database.db
        .selectFrom('audit')
        .select(['actor_id', 'detail'])
        .where('action', '=', 'graphics.request')
        .where('imodel_id', '=', empty.id)
        .execute();
      assert.deepEqual(entries, [{ actor_id: people.olivia.id, detail: '{"index":0}' }]);
    },
  );

  test('of a two-dimensional iModel are a plan; a lost file is an error that nobody keeps', { skip }, async () => {
    const id = await makePlant(context, 40, '2d');
    const { state, summary, chunks } = await ended(context.api, id);
    assert.deepEqual([state, summary?.elements, summary?.is2d], ['successful', 40, true]);
    const [chunk] = chunks;
    // Two rows of rooms of 4 by 3 metres, 20 to a row; each is drawn where its element is.
    const { low, high } = chunk?.bounds ?? { low: [], high: [] };
    assert.deepEqual(
      [low.slice(0, 2).map(Math.round), high.slice(0, 2).map(Math.round)],
      [
        [0, 0],
        [99, 7],
      ],
    );
    const { meshes, accessors } = gltfIn(await bytesAt(chunk?.href ?? ''));
    const [primitive] = meshes[0]?.primitives ?? [];
    // Each room has four walls and a circle.
    assert.equal(primitive?.mode, 1);
    assert.ok((accessors[primitive.indices]?.count ?? 0) >= 40 * (4 + 12) * 2);
    assert.ok((await coloursIn(await thumbnail(id))) >= 3);

    // Clients must neither decompress nor keep an error.
    const { blobs } = context.server.services;
    const href = chunk?.href ?? '';
    const stored = await blobs.findReadable(/graphics\/([^/]+)/.exec(href)?.[1] ?? '');
    assert.ok(stored !== undefined);
    await blobs.stores.get(stored.store).delete(stored.key);
    for (const encoding of ['br', 'identity']) {
      const lost = await fetch(href, { headers: { 'accept-encoding': encoding } });
      assert.equal(lost.status, 500);
      assert.equal(lost.headers.get('content-encoding'), null);
      assert.doesNotMatch(lost.headers.get('cache-control') ?? '', /immutable/);
    }
  });
});

onOneDatabase(
  'Graphics beyond the limit of triangles',
  { ...config, graphics: { enabled: true, maxTriangles: 3000 } },
  (context) => {
    test('leave out the smallest elements and say so', { skip }, async () => {
      const graphics = await ended(context.api, await makePlant(context, 300));
      const { summary } = graphics;
      assert.ok(summary !== null && summary.triangles <= 3000 && summary.triangles > 1000);
      assert.ok(summary.omittedElements > 0 && summary.omittedElements < 300 && summary.omittedTriangles > 0);
      const { elements } = await tableOf(graphics);
      assert.equal(elements.hash.filter((hash) => hash === null).length, summary.omittedElements);
      assert.equal(typeof elements.hash[0], 'string');
      assert.equal(elements.hash.at(-1), null);
    });
  },
);

onOneDatabase(
  'When the process that draws is killed',
  { ...config, graphics: { enabled: true, attempts: 1 } },
  (context) => {
    test('the picture fails with the reason, and neither the checkpoint nor the iModel', { skip }, async () => {
      const made = makePlant(context, 2000);
      const pid = await until('the process', () => context.server.services.drawer?.pids[0], 60_000);
      process.kill(pid, 'SIGKILL');
      const id = await made;
      const { state, error, chunks } = await ended(context.api, id);
      assert.deepEqual([state, error?.code, chunks], ['failed', 'GraphicsFailed', []]);
      assert.match(error?.message ?? '', /^The process that draws iModels ended unexpectedly \((?:SIGKILL|137)\)\.$/);
      const { checkpoint } = (await context.api.get(`/imodels/${id}/changesets/0/checkpoint`)).body as {
        checkpoint: { state: string };
      };
      assert.equal(checkpoint.state, 'successful');
      assert.equal((await context.api.put(`/imodels/${id}/changesets/0/graphics`, {})).status, 202);
      assert.equal((await ended(context.api, id)).state, 'successful');
    });
  },
);

onOneDatabase('Without a server that draws', {}, (context) => {
  test('the state is none with the reason, and a request for graphics is refused', async () => {
    const { id } = await makeIModel(context.olivia, context.iTwinId);
    const { state, error } = await graphicsOf(context.api, id);
    assert.deepEqual(
      [state, error],
      ['none', { code: 'GraphicsNotMade', message: 'This installation draws no iModels.' }],
    );
    const refused = await context.api.put(`/imodels/${id}/changesets/0/graphics`, {});
    assert.deepEqual([refused.status, (refused.body as WireError).error.code], [409, 'GraphicsNotMade']);
  });
});

onEachStore(
  'Graphics of a copy in another data center',
  (setup) => ({ ...config, dataCenters: { 'West Europe': otherStore(setup) } }),
  (context) => {
    test('are drawn there', { skip }, async () => {
      const source = await makePlant(context, 100);
      const { summary } = await ended(context.api, source);
      const far = await context.server.iTwin('olivia', undefined, 'West Europe');
      const accepted = await context.api.post(`/imodels/${source}/clone`, { iTwinId: far, name: randomUUID() });
      const id = (accepted.headers.get('location') ?? '').slice(-36);
      const copy = await until(
        'the graphics of the copy',
        async () => {
          const { status, body } = await context.api.get(`/imodels/${id}/changesets/0/graphics`);
          const graphics = status === 200 ? (body as { graphics: Graphics }).graphics : undefined;
          return graphics?.state === 'successful' ? graphics : undefined;
        },
        60_000,
      );
      assert.deepEqual(copy.summary, summary);
      const blob = await context.server.services.blobs.findReadable(
        /graphics\/([^/]+)/.exec(copy.chunks[0]?.href ?? '')?.[1] ?? '',
      );
      assert.equal(blob?.store, context.server.services.blobs.stores.ofDataCenter('West Europe').id);
    });
  },
);
