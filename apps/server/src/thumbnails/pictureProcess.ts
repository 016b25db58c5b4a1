/**
 * Scales one picture in a separate process. Decoding would block a thread of the pool that also reads files, and the
 * decoder is native code that parses untrusted bytes. Reads the picture from standard input and writes the answer to
 * standard output (`readScaled` in `pictures.ts`). With the argument `default` it draws the default picture of iModels.
 */
import { buffer } from 'node:stream/consumers';
import type Sharp from 'sharp';
import { sizes, type PictureFault, type ScaledHead } from './pictureSizes.ts';
import { maxPixels } from '../domain.ts';

/** The default picture of iModels: a wire frame of a building. */
const defaultPicture = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 800 500">
  <rect width="800" height="500" fill="#eef1f5"/>
  <g fill="none" stroke="#9aa7b8" stroke-width="6" stroke-linejoin="round">
    <path d="M400 90 580 180 580 350 400 440 220 350 220 180Z"/><path d="M220 180 400 270 580 180M400 270 400 440"/>
    <path d="M280 210 280 380M340 240 340 410M460 240 460 410M520 210 520 380M220 265 400 355 580 265" stroke-width="3"/>
  </g></svg>`;

/** The picture cannot be scaled. */
class FaultError extends Error {
  readonly fault: PictureFault;

  constructor(fault: PictureFault) {
    super(fault);
    this.fault = fault;
  }
}

async function scale(sharp: typeof Sharp, picture: Buffer, maxProportion: number): Promise<Buffer[]> {
  const { format, width, height } = await sharp(picture, { limitInputPixels: false }).metadata();
  if (format !== 'png' && format !== 'jpeg') throw new FaultError('notAPicture');
  if (width > maxProportion * height || height > maxProportion * width) throw new FaultError('proportions');
  if (width * height > maxPixels[format]) throw new FaultError('tooManyPixels');
  const image = sharp(picture, { limitInputPixels: maxPixels[format], failOn: 'error' }).rotate();
  // The picture is decoded once. The small size is scaled from the large one, which has twice its width and height.
  const large = await image
    .resize({ ...sizes.large, fit: 'contain', background: { r: 0, g: 0, b: 0, alpha: 0 } })
    .png()
    .toBuffer();
  return [await sharp(large).resize(sizes.small).png().toBuffer(), large];
}

async function draw(sharp: typeof Sharp): Promise<Buffer[]> {
  const drawn = (size: keyof typeof sizes): Promise<Buffer> =>
    sharp(Buffer.from(defaultPicture)).resize(sizes[size]).png({ compressionLevel: 9 }).toBuffer();
  return [await drawn('small'), await drawn('large')];
}

async function answer(): Promise<{ head: ScaledHead; pictures: Buffer[] }> {
  let sharp: typeof Sharp;
  try {
    sharp = (await import('sharp')).default;
  } catch (error) {
    return { head: { fault: 'notInstalled', cause: String(error), bytes: [] }, pictures: [] };
  }
  sharp.concurrency(1);
  sharp.cache(false);
  try {
    const pictures =
      process.argv[2] === 'default'
        ? await draw(sharp)
        : await scale(sharp, await buffer(process.stdin), Number(process.argv[3]));
    return { head: { bytes: pictures.map(({ length }) => length) }, pictures };
  } catch (error) {
    return {
      head: { fault: error instanceof FaultError ? error.fault : 'notAPicture', cause: String(error), bytes: [] },
      pictures: [],
    };
  }
}

const { head, pictures } = await answer();
process.stdout.write(`${JSON.stringify(head)}\n`);
for (const picture of pictures) process.stdout.write(picture);
