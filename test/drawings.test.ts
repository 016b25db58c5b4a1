import assert from 'node:assert/strict';
import { ThumbnailSize } from '@itwin/imodels-client-management';
import { before, test } from 'node:test';
import sharp from 'sharp';
import { isITwinJsInstalled } from '../apps/server/src/checkpoints/itwinjs/workerProcess.ts';
import { shareOf } from './support/pixels.ts';
import { bytesAt, ended, gltfIn, graphicsOf, makeModel, tableOf } from './support/graphics.ts';
import { onEachDatabase } from './support/suite.ts';

const skip = isITwinJsInstalled() ? false : 'iTwin.js is not installed';

onEachDatabase(
  'Graphics of a drawing',
  {
    checkpoints: { generate: 'auto', delaySeconds: 0, firstRetrySeconds: 0 },
    graphics: { enabled: true },
  },
  (context) => {
    let plan: string;
    before(async () => {
      if (skip === false) plan = await makeModel(context.olivia, context.iTwinId, 'drawingProcess.ts', ['plan']);
    });

    test('have its fillings and texts, each in its subcategory', { skip }, async () => {
      const graphics = await ended(context.api, plan);
      assert.equal(graphics.state, 'successful', graphics.error?.message);
      assert.deepEqual([graphics.summary?.is2d, graphics.summary?.outdated], [true, false]);
      const { subCategories, elements, categories } = await tableOf(graphics);
      assert.deepEqual(categories.length, 1);
      assert.deepEqual(
        subCategories.map(({ label, category, hidden, elements: count }) => [label, category, hidden, count]),
        [
          ['Rooms', 0, false, 2],
          ['Notes', 0, false, 1],
          ['Drafts', 0, true, 1],
        ],
      );
      assert.deepEqual(elements.label, ['room', 'carpet', 'note', 'draft'], 'the largest element is drawn first');

      const [chunk] = graphics.chunks;
      const { nodes, meshes, materials, accessors } = gltfIn(await bytesAt(chunk?.href ?? ''));
      const surfaces = nodes.flatMap(({ mesh, extras }) => {
        const [primitive] = meshes[mesh]?.primitives ?? [];
        if (primitive?.mode !== 4) return [];
        const color = materials[primitive.material]?.pbrMetallicRoughness.baseColorFactor;
        return [
          {
            color: color?.join(' '),
            in: subCategories[extras.subCategory]?.label,
            triangles: (accessors[primitive.indices]?.count ?? 0) / 3,
          },
        ];
      });
      const [room, carpet, note, draft] = surfaces;
      assert.deepEqual(
        [room, carpet, draft],
        [
          { color: '1 0 0 1', in: 'Rooms', triangles: 2 },
          { color: '1 1 0 1', in: 'Rooms', triangles: 2 },
          { color: '0 1 0 1', in: 'Drafts', triangles: 2 },
        ],
      );
      // Letters are outlines: the strokes of HALL need 10 triangles at the least.
      assert.deepEqual([note?.color, note?.in], ['0 0 1 1', 'Notes']);
      assert.ok((note?.triangles ?? 0) >= 10);
    });

    /** Reads the thumbnail. @returns the share of its pixels that have about a colour */
    const sharesOf = async (iModelId: string): Promise<(wanted: readonly number[]) => number> => {
      const { client, authorization } = context.olivia;
      const { image } = await client.thumbnails.download({
        authorization,
        iModelId,
        urlParams: { size: ThumbnailSize.Large },
      });
      const data = await sharp(Buffer.from(image)).removeAlpha().raw().toBuffer();
      return (wanted) =>
        shareOf({ data }, (...rgb) => rgb.every((value, n) => Math.abs(value - (wanted[n] ?? 0)) < 30));
    };

    test('show in the thumbnail, without what is invisible at first', { skip }, async () => {
      await ended(context.api, plan);
      const share = await sharesOf(plan);
      assert.ok(share([255, 0, 0]) > 0.2, 'the room is red');
      assert.ok(share([255, 255, 0]) > 0.05, 'the carpet is yellow');
      assert.ok(share([0, 0, 255]) > 0.005, 'the text is blue');
      assert.equal(share([0, 255, 0]), 0, 'the draft is invisible');
    });

    test('that an earlier version drew are shown as they are, and are replaced on request', { skip }, async () => {
      const drawn = await ended(context.api, plan);
      const { db } = context.server.services.database;
      const rows = await db.selectFrom('graphics').select(['id', 'summary']).where('summary', 'is not', null).execute();
      for (const { id, summary } of rows) {
        const { format, ...rest } = JSON.parse(summary ?? '') as Record<string, unknown>;
        assert.equal(format, 3);
        await db
          .updateTable('graphics')
          .set({ summary: JSON.stringify(rest) })
          .where('id', '=', id)
          .execute();
      }
      const earlier = await graphicsOf(context.api, plan);
      assert.deepEqual([earlier.state, earlier.summary?.outdated], ['successful', true]);
      assert.deepEqual(earlier.chunks, drawn.chunks);
      assert.equal((await context.api.put(`/imodels/${plan}/changesets/0/graphics`, {})).status, 202);
      const replaced = await ended(context.api, plan);
      assert.deepEqual(replaced.summary, drawn.summary);
      // What is drawn is the same, so each file has the same size, whether or not the released one was used again.
      assert.deepEqual(
        replaced.chunks.map(({ size }) => size),
        drawn.chunks.map(({ size }) => size),
      );
      gltfIn(await bytesAt(replaced.chunks[0]?.href ?? ''));
    });

    test(
      'have the textures of surfaces, made smaller, in the thumbnail too, and texts and subcategories of three-dimensional elements',
      { skip },
      async () => {
        const id = await makeModel(context.olivia, context.iTwinId, 'drawingProcess.ts', ['textured']);
        const graphics = await ended(context.api, id);
        assert.equal(graphics.state, 'successful', graphics.error?.message);
        assert.deepEqual([graphics.summary?.elements, graphics.summary?.omittedTextures], [5, 1]);
        const { subCategories } = await tableOf(graphics);
        assert.deepEqual(
          subCategories.map(({ label, hidden, elements }) => [label, hidden, elements]),
          [
            ['Boxes', false, 3],
            ['Second', false, 2],
            ['Signs', false, 1],
          ],
        );
        assert.equal(graphics.chunks.length, 1);
        const glb = await bytesAt(graphics.chunks[0]?.href ?? '');
        const { nodes, meshes, materials, textures, images, bufferViews } = gltfIn(glb);
        const binary = 28 + glb.readUInt32LE(12);
        const seen: unknown[] = [];
        for (const { mesh, extras } of nodes) {
          const [primitive] = meshes[mesh]?.primitives ?? [];
          const { baseColorTexture } = materials[primitive?.material ?? -1]?.pbrMetallicRoughness ?? {};
          const image = images?.[textures?.[baseColorTexture?.index ?? -1]?.source ?? -1];
          const view = bufferViews[image?.bufferView ?? -1];
          assert.equal(primitive?.attributes['TEXCOORD_0'] === undefined, image === undefined);
          if (view === undefined) {
            seen.push([subCategories[extras.subCategory]?.label]);
            continue;
          }
          const { data, info } = await sharp(
            glb.subarray(binary + view.byteOffset, binary + view.byteOffset + view.byteLength),
          )
            .removeAlpha()
            .raw()
            .toBuffer({ resolveWithObject: true });
          const at = (x: number): string => {
            const place = ((info.height >> 1) * info.width + Math.floor(x * info.width)) * 3;
            return [...data.subarray(place, place + 3)].map((value) => (value > 128 ? 1 : 0)).join('');
          };
          seen.push([subCategories[extras.subCategory]?.label, info.width, at(0.25), at(0.75)]);
        }
        // The large picture had 1,600 pixels at each side.
        assert.deepEqual(seen, [
          ['Boxes', 64, '101', '010'],
          ['Boxes', 512, '101', '010'],
          ['Second'],
          ['Boxes'],
          ['Signs'],
        ]);
        // The tops of the boxes, which the light meets.
        const share = await sharesOf(id);
        assert.ok(share([238, 0, 238]) > 0.01, 'one half of the texture is magenta');
        assert.ok(share([0, 238, 0]) > 0.01, 'the other half is lime');
        assert.ok(share([115, 115, 115]) > 0.01, 'what has a broken texture has the colour of its category');
        assert.ok(share([0, 0, 255]) > 0.002, 'the letters of the sign are blue');
      },
    );
  },
);
