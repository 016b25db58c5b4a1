import type Sharp from 'sharp';
import type { TextureImage } from './textures.ts';

/** Longest side of a decoded texture, pixels. A power of two, like each side. */
const longestSide = 512;
/** Pixels of all decoded textures together: 24 MiB, and a third of it for their smaller sizes. */
const mostPixels = 2 ** 23;
/** Pixels of a picture before it is scaled. iTwin.js gives at most 512 × 512, but only the file itself says how many there are. */
const mostInputPixels = 512 * 512;
/** Timeout for one picture, seconds. 512 × 512 pixels take some milliseconds. */
const timeoutSeconds = 2;
/** Timeout for all of them, milliseconds. */
const timeoutOfAllMs = 20_000;

/** A texture whose colours can be read. */
export class Texels {
  readonly #side: number;
  /** Red, green and blue of each pixel, in the full size and then in ever half of it, down to one pixel. */
  readonly #sizes: Uint8Array[];

  /** @param rgb a square whose side is a power of two */
  constructor(rgb: Uint8Array, side: number) {
    this.#side = side;
    this.#sizes = [rgb];
    for (let from = side; from > 1; from /= 2) this.#sizes.push(halved(this.#sizes.at(-1) as Uint8Array, from, from));
  }

  /** The number of the size of which about one pixel is seen in each pixel of the picture. @param share of the texture in one pixel */
  sizeFor(share: number): number {
    const size = Math.round(Math.log2(this.#side * Math.sqrt(share)));
    return size > 0 ? Math.min(size, this.#sizes.length - 1) : 0;
  }

  /** Writes red, green and blue at a place, where the texture is repeated in both directions. @param v from the upper edge */
  read(u: number, v: number, size: number, into: number[]): void {
    const side = this.#side >> size;
    const x = Math.min(side - 1, Math.floor((u - Math.floor(u)) * side));
    const y = Math.min(side - 1, Math.floor((v - Math.floor(v)) * side));
    const at = (y * side + x) * 3;
    for (let c = 0; c < 3; c++) into[c] = (this.#sizes[size] as Uint8Array)[at + c] as number;
  }
}

/**
 * Decodes textures for the thumbnail, none if sharp is not installed. The surfaces of what is missing have the colour of the material.
 * @param onProgress called after each texture
 * @returns the decoded textures by their ids, and the ids of those that are no pictures
 */
export async function decodeTextures(
  images: ReadonlyMap<string, TextureImage>,
  onProgress: () => void,
): Promise<{ texels: Map<string, Texels>; broken: string[] }> {
  const texels = new Map<string, Texels>();
  const broken: string[] = [];
  if (images.size === 0) return { texels, broken };
  const sharp = await import('sharp').then(
    (module) => module.default,
    () => undefined,
  );
  if (sharp === undefined) return { texels, broken };
  sharp.concurrency(1);
  sharp.cache(false);
  const side = Math.min(longestSide, 2 ** Math.floor(Math.log2(Math.sqrt(mostPixels / images.size))));
  const timeout = AbortSignal.timeout(timeoutOfAllMs);
  for (const [id, { bytes }] of images) {
    if (timeout.aborted) break;
    await decode(sharp, bytes, side).then(
      (decoded) => texels.set(id, decoded),
      () => broken.push(id),
    );
    onProgress();
  }
  return { texels, broken };
}

async function decode(sharp: typeof Sharp, bytes: Uint8Array, side: number): Promise<Texels> {
  const rgb = await sharp(bytes, { limitInputPixels: mostInputPixels, failOn: 'error' })
    // The view of the console draws transparent pixels opaque, too.
    .removeAlpha()
    .toColourspace('srgb')
    .resize({ width: side, height: side, fit: 'fill' })
    .timeout({ seconds: timeoutSeconds })
    .raw()
    .toBuffer();
  if (rgb.length !== side * side * 3) throw new Error('a texture has other channels than red, green and blue');
  return new Texels(rgb, side);
}

/** Halves both sides of a picture. @param width its pixels in a row, an even number like that of its rows */
export function halved(rgb: Uint8Array, width: number, rows: number): Uint8Array {
  const half = new Uint8Array((width / 2) * (rows / 2) * 3);
  for (let y = 0; y < rows / 2; y++)
    for (let x = 0; x < width / 2; x++)
      for (let c = 0; c < 3; c++) {
        const at = (y * 2 * width + x * 2) * 3 + c;
        const sum =
          (rgb[at] as number) +
          (rgb[at + 3] as number) +
          (rgb[at + width * 3] as number) +
          (rgb[at + width * 3 + 3] as number);
        half[(y * (width / 2) + x) * 3 + c] = Math.round(sum / 4);
      }
  return half;
}
