import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ThumbnailSize } from '@itwin/imodels-client-management';
import sharp, { type Sharp } from 'sharp';
import { collect } from '../apps/server/src/collector/collect.ts';
import type { WireError } from './support/api.ts';
import { makeIModel } from './support/clients.ts';
import { onEachStore } from './support/suite.ts';

onEachStore('Thumbnails', {}, (context) => {
  const download = async (iModelId: string, size: ThumbnailSize): Promise<Buffer> => {
    const { client, authorization } = context.olivia;
    return Buffer.from((await client.thumbnails.download({ authorization, iModelId, urlParams: { size } })).image);
  };
  const picture = (background: string): Sharp =>
    sharp({ create: { width: 500, height: 500, channels: 3, background } });
  const upload = (iModelId: string, imageType: 'image/png' | 'image/jpeg', image: Buffer): Promise<void> =>
    context.olivia.client.thumbnails.upload({
      authorization: context.olivia.authorization,
      iModelId,
      thumbnailProperties: { imageType: imageType as never, image: Uint8Array.from(image) },
    });

  test('exist as PNG in two sizes for every iModel', async () => {
    const { id } = await makeIModel(context.olivia, context.iTwinId);
    for (const [size, width, height] of [
      [ThumbnailSize.Small, 400, 250],
      [ThumbnailSize.Large, 800, 500],
    ] as const) {
      const about = await sharp(await download(id, size)).metadata();
      assert.deepEqual([about.format, about.width, about.height], ['png', width, height]);
    }
    const byDefault = await fetch(`${context.server.origin}/imodels/${id}/thumbnail`, {
      headers: { authorization: `Bearer ${await context.server.token('olivia')}` },
    });
    assert.equal(byDefault.headers.get('content-type'), 'image/png');
    assert.deepEqual(Buffer.from(await byDefault.arrayBuffer()), await download(id, ThumbnailSize.Small));
  });

  test('can be replaced by PNG and JPEG uploads, are not cloned, and leave no bytes behind', async () => {
    const { database, blobs } = context.server.services;
    const seed = await database.db
      .selectFrom('baseline')
      .select('id')
      .where('id', 'like', 'seed-%')
      .executeTakeFirstOrThrow();
    const run = () =>
      collect(database, blobs.stores, {
        graceMs: 0,
        uploadLifeMs: 3_600_000,
        seeds: new Map([[blobs.stores.home.id, seed.id]]),
        groupLifeMs: 3_600_000,
        thorough: true,
      });
    const { id } = await makeIModel(context.olivia, context.iTwinId);
    const initial = await download(id, ThumbnailSize.Small);
    await upload(id, 'image/png', await picture('red').png().toBuffer());
    const red = await download(id, ThumbnailSize.Small);
    assert.notEqual(red.length, initial.length);
    await upload(id, 'image/jpeg', await picture('blue').jpeg().toBuffer());
    const blue = await sharp(await download(id, ThumbnailSize.Large)).metadata();
    assert.deepEqual([blue.format, blue.width, blue.height], ['png', 800, 500]);
    const { dominant } = await sharp(await download(id, ThumbnailSize.Small))
      .removeAlpha()
      .extract({ left: 150, top: 50, width: 100, height: 100 })
      .stats();
    assert.ok(dominant.b > 200 && dominant.r < 50);
    assert.equal((await run()).blobs, 2);
    const clone = await context.olivia.client.iModels.clone({
      authorization: context.olivia.authorization,
      iModelId: id,
      iModelProperties: { iTwinId: context.iTwinId, name: 'no picture' },
    });
    assert.deepEqual(await download(clone.id, ThumbnailSize.Small), initial);
    await context.olivia.client.iModels.delete({ authorization: context.olivia.authorization, iModelId: id });
    assert.equal((await run()).blobs, 2);
  });

  test('invalid images are refused, and nothing changes', async () => {
    const { id } = await makeIModel(context.olivia, context.iTwinId);
    const put = (body: Uint8Array | string, headers: Record<string, string>) =>
      context.api.put(`/imodels/${id}/thumbnail`, body, headers);
    const initial = await download(id, ThumbnailSize.Small);
    const png = await picture('red').png().toBuffer();
    const format = {
      code: 'InvalidRequestBody',
      message: "Invalid Thumbnail format. Please use one of the supported media formats: 'image/jpeg', 'image/png'.",
      innerError: { code: 'InvalidThumbnailFormat' },
    };
    // Bytes that claim an image of 4 gigapixels.
    const bomb = Buffer.from(png);
    bomb.writeUInt32BE(65_535, 16);
    bomb.writeUInt32BE(65_535, 20);
    for (const bytes of [
      Buffer.from('no picture'),
      Buffer.alloc(0),
      png.subarray(0, 60),
      await picture('red').webp().toBuffer(),
      Buffer.from('<svg xmlns="http://www.w3.org/2000/svg"/>'),
    ]) {
      const answer = await put(bytes, { 'content-type': 'image/png' });
      assert.deepEqual(
        [answer.status, answer.body],
        [422, { error: { code: 'InvalidiModelsRequest', message: 'Cannot upload Thumbnail.', details: [format] } }],
      );
    }
    assert.deepEqual(((await put(bomb, { 'content-type': 'image/png' })).body as WireError).error.details, [
      {
        code: 'InvalidRequestBody',
        message: 'The picture has too many pixels. A PNG may have 16777216, a JPEG 50000000.',
      },
    ]);
    const gif = await put(png, { 'content-type': 'image/gif' });
    assert.deepEqual((gif.body as WireError).error.details, [
      {
        code: 'InvalidHeaderValue',
        message: "'image/gif' is not supported 'content-type'. Supported media types are 'image/jpeg', 'image/png'.",
        target: 'content-type',
      },
    ]);
    assert.deepEqual(
      ((await put(png, { 'content-type': 'png' })).body as WireError).error.details?.map(({ message }) => message),
      ["'png' is not supported 'content-type'. Supported media types are 'image/jpeg', 'image/png'."],
    );
    assert.equal(((await put(png, {})).body as WireError).error.details?.[0]?.code, 'MissingRequiredHeader');
    const large = await put(Buffer.alloc(5_242_881), { 'content-type': 'image/png' });
    assert.deepEqual(
      [large.status, large.body],
      [
        413,
        {
          error: {
            code: 'RequestTooLarge',
            message: 'Request body is too large. Maximum allowed request body size is 5242880 bytes.',
          },
        },
      ],
    );
    const size = await context.api.get(`/imodels/${id}/thumbnail?size=invalidSize`);
    assert.deepEqual((size.body as WireError).error.details, [
      {
        code: 'InvalidValue',
        message: "'invalidSize' is not a valid 'size'. Valid 'size' values are: 'small', 'large'.",
        target: 'size',
      },
    ]);
    assert.deepEqual(await download(id, ThumbnailSize.Small), initial);
  });
});
