/** `npm run screenshots`: makes the pictures of the console in `docs/images`. A test compares them with the console of today. */
import { mkdirSync } from 'node:fs';
import path from 'node:path';
import sharp from 'sharp';
import { imageFolder, takeScreenshots } from '../test/support/screenshots.ts';

mkdirSync(imageFolder, { recursive: true });
for (const { name, png } of await takeScreenshots())
  await sharp(png).png({ palette: true, quality: 90, effort: 10 }).toFile(path.join(imageFolder, name));
