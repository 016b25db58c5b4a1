/** Pages with the iTwin viewer, and pages of core-frontend alone, for tests. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import type { Page } from 'playwright-core';
import sharp from 'sharp';
import type { ConsoleBrowser } from './console.ts';
import { until } from './until.ts';
import type { ViewInput, ViewResult } from './viewPage.ts';

export const isViewerBuilt = existsSync(new URL('../../packages/viewer/dist/index.html', import.meta.url));
/** Longest time for a view to be complete, milliseconds; it takes 5 to 20 s on two cores without a graphics card. */
export const viewMs = 120_000;

/** What a view shows, without what lies over it. */
export interface Picture {
  data: Buffer;
  width: number;
  height: number;
}

/** How long a picture must not change, milliseconds: the viewer fits the view 0.1 s after the first tiles have come. */
const unchangedMs = 1500;

/** Reads a complete view: no tile is wanted any more, and the picture does not change. */
export async function pictureOf(page: Page): Promise<Picture> {
  await page.bringToFront();
  const canvas = page.locator('canvas[data-state=complete]').first();
  await canvas.waitFor({ timeout: viewMs });
  let last: Buffer | undefined;
  let since = 0;
  const png = await until(
    'a view that does not change',
    async () => {
      // Only the canvas: the tools over it come and go with the pointer.
      const read = await canvas.screenshot({
        timeout: viewMs,
        style: 'body * { visibility: hidden !important } canvas { visibility: visible !important }',
      });
      if (last === undefined || !read.equals(last)) [last, since] = [read, Date.now()];
      return Date.now() - since < unchangedMs ? undefined : read;
    },
    viewMs,
  );
  const { data, info } = await sharp(png).removeAlpha().raw().toBuffer({ resolveWithObject: true });
  return { data, width: info.width, height: info.height };
}

/** The share of pixels that differ visibly. */
export function difference(a: Picture, b: Picture): number {
  assert.deepEqual([a.width, a.height], [b.width, b.height]);
  const channels = a.data.length / (a.width * a.height);
  let differ = 0;
  for (let at = 0; at < a.data.length; at += channels)
    if ([0, 1, 2].some((channel) => Math.abs((a.data[at + channel] ?? 0) - (b.data[at + channel] ?? 0)) > 12)) differ++;
  return differ / (a.width * a.height);
}

/** The share of pixels that are not those of the background, which is the color of the first one. */
export function drawnShare({ data, width, height }: Picture): number {
  const channels = data.length / (width * height);
  const background = data.subarray(0, 3);
  let drawn = 0;
  for (let at = 0; at < data.length; at += channels) if (!data.subarray(at, at + 3).equals(background)) drawn++;
  return drawn / (width * height);
}

/** A place on the drawn thing that is nearest to the middle of all that is drawn. */
export function middleOf({ data, width, height }: Picture): { x: number; y: number } {
  const channels = data.length / (width * height);
  const isDrawn = (x: number, y: number): boolean =>
    !data.subarray((y * width + x) * channels, (y * width + x) * channels + 3).equals(data.subarray(0, 3));
  const drawn: { x: number; y: number }[] = [];
  for (let y = 4; y < height - 4; y += 2)
    for (let x = 4; x < width - 4; x += 2)
      if ([-4, 0, 4].every((dy) => [-4, 0, 4].every((dx) => isDrawn(x + dx, y + dy)))) drawn.push({ x, y });
  const mean = (axis: 'x' | 'y'): number => drawn.reduce((sum, place) => sum + place[axis], 0) / drawn.length;
  const [x, y] = [mean('x'), mean('y')];
  const distance = (place: { x: number; y: number }): number => Math.hypot(place.x - x, place.y - y);
  return drawn.reduce((nearest, place) => (distance(place) < distance(nearest) ? place : nearest));
}

/** Opens iModels in one page of core-frontend, at an origin other than the server's. */
export async function viewInBrowser(browser: ConsoleBrowser, input: ViewInput): Promise<ViewResult[]> {
  const script = await bundle();
  const { promise, resolve, reject } = Promise.withResolvers<ViewResult[]>();
  const host = createServer((request, response) => {
    if (request.method === 'POST') {
      let body = '';
      request.on('data', (text: Buffer) => (body += text.toString()));
      request.on('end', () => {
        response.end();
        const found = JSON.parse(body) as ViewResult[] | { fault: string };
        if (Array.isArray(found)) resolve(found);
        else reject(new Error(found.fault));
      });
      return;
    }
    const answers: Record<string, [type: string, body: string]> = {
      '/': ['text/html', '<!doctype html><meta charset="utf-8"><script type="module" src="/page.js"></script>'],
      '/page.js': ['text/javascript', script],
      '/input': ['application/json', JSON.stringify(input)],
    };
    const [type, body] = answers[request.url ?? ''] ?? ['application/json', '{}'];
    response.setHeader('content-type', type).end(body);
  });
  await new Promise<void>((listening) => host.listen(0, '127.0.0.1', listening));
  const page = await browser.open();
  try {
    const failed = new Promise<never>((_, fail) => page.once('pageerror', (error) => fail(error)));
    await page.goto(`http://localhost:${(host.address() as AddressInfo).port}/`);
    return await Promise.race([promise, failed]);
  } finally {
    await page.context().close();
    host.close();
    host.closeAllConnections();
  }
}

let bundled: Promise<string> | undefined;
function bundle(): Promise<string> {
  bundled ??= build({
    entryPoints: [fileURLToPath(new URL('./viewPage.ts', import.meta.url))],
    bundle: true,
    write: false,
    format: 'esm',
    platform: 'browser',
    logLevel: 'silent',
  }).then(({ outputFiles }) => outputFiles[0]?.text ?? '');
  return bundled;
}
