import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import sharp from 'sharp';
import { isITwinJsInstalled } from '../../apps/server/src/checkpoints/itwinjs/workerProcess.ts';
import { chromium } from '../support/chromium.ts';
import { imageFolder, takeScreenshots } from '../support/screenshots.ts';

const skip =
  chromium === undefined ? 'there is no Chromium' : isITwinJsInstalled() ? false : 'iTwin.js is not installed';
const root = fileURLToPath(new URL('../..', import.meta.url));

/**
 * Largest mean difference of a picture from the page of today, as a share of the full range. Pictures of the same page differ by
 * less than 0.001 on one machine, and by more where other fonts are installed; pages differ from each other by 0.07 and more.
 */
const largestDifference = 0.04;

/** The mean difference of two pictures, seen from so far away that single letters do not count. */
async function differenceOf(one: Buffer, other: Buffer): Promise<number> {
  const seen = (png: Buffer) => sharp(png).flatten().greyscale().resize(160, 112, { fit: 'fill' }).raw().toBuffer();
  const [a, b] = await Promise.all([seen(one), seen(other)]);
  let sum = 0;
  for (const [at, value] of a.entries()) sum += Math.abs(value - (b[at] ?? 0));
  return sum / a.length / 255;
}

async function sizeOf(png: Buffer): Promise<string> {
  const { width, height } = await sharp(png).metadata();
  return `${width} x ${height}`;
}

test('the pictures of the documents show the console as it is', { skip }, async () => {
  const documents = globSync(['README.md', 'docs/**/*.md'], { cwd: root })
    .map((file) => readFileSync(path.join(root, file), 'utf8'))
    .join('\n');
  for (const { name, png } of await takeScreenshots()) {
    assert.ok(documents.includes(`images/${name})`), `no document shows ${name}`);
    const picture = readFileSync(path.join(imageFolder, name));
    assert.equal(await sizeOf(picture), await sizeOf(png), name);
    const difference = await differenceOf(picture, png);
    assert.ok(difference < largestDifference, `${name} is out of date (${difference}): npm run screenshots`);
  }
});
