import assert from 'node:assert/strict';
import type { Page } from 'playwright-core';
import sharp from 'sharp';

/** The pixels of a canvas, without what lies over it. */
export interface Pixels {
  data: Buffer;
  width: number;
  height: number;
}

export async function pixelsOf(page: Page, n = 0): Promise<Pixels> {
  const canvas = page.locator('canvas').nth(n);
  const { data, info } = await sharp(await canvas.screenshot())
    .extract({ left: 2, top: 40, ...(await innerSize(page, n)) })
    .removeAlpha()
    .raw()
    .toBuffer({ resolveWithObject: true });
  return { data, width: info.width, height: info.height };
}

async function innerSize(page: Page, n: number): Promise<{ width: number; height: number }> {
  const box = await page.locator('canvas').nth(n).boundingBox();
  assert.ok(box !== null);
  return { width: Math.floor(box.width) - 4, height: Math.floor(box.height) - 44 };
}

/** The share of pixels that differ visibly. */
export function difference(a: Pixels, b: Pixels): number {
  assert.deepEqual([a.width, a.height], [b.width, b.height]);
  let differ = 0;
  for (let at = 0; at < a.data.length; at += 3)
    if ([0, 1, 2].some((channel) => Math.abs((a.data[at + channel] ?? 0) - (b.data[at + channel] ?? 0)) > 12)) differ++;
  return differ / (a.data.length / 3);
}

/** The share of pixels of one kind. */
export function shareOf(
  { data }: Pick<Pixels, 'data'>,
  is: (red: number, green: number, blue: number) => boolean,
): number {
  let found = 0;
  for (let at = 0; at < data.length; at += 3) if (is(data[at] ?? 0, data[at + 1] ?? 0, data[at + 2] ?? 0)) found++;
  return found / (data.length / 3);
}
