import type { SnapshotDb } from '@itwin/core-backend';
import { ImageSourceFormat } from '@itwin/core-common';
import type { Geometry } from './geometry.ts';

/** The part of iTwin.js that reads textures. */
export type TextureReader = Pick<SnapshotDb, 'queryTextureData'>;

/** A picture for a chunk. */
export interface TextureImage {
  mimeType: 'image/jpeg' | 'image/png';
  bytes: Uint8Array;
}

/** Longest side, pixels: iTwin.js makes larger pictures smaller. */
const longestSide = 512;
/** A picture of that size takes up to 1 MiB as PNG. */
const mostBytes = 1_048_576;
/** Of all textures of a drawing. */
const mostBytesOfAll = 8 * 1_048_576;
const mostTextures = 500;

/**
 * Reads the textures that are used, those of the largest elements first, as far as they fit.
 * @returns the pictures by the ids of their textures, and how many textures are left out
 */
export async function readTextures(
  db: TextureReader,
  { placed, instances, materials }: Geometry,
): Promise<{ images: Map<string, TextureImage>; omitted: number }> {
  const used = new Set<string>();
  const pieces = [...placed.map(({ piece }) => piece), ...instances.flatMap(({ part }) => part.pieces)];
  for (const { material } of pieces) {
    const texture = materials[material]?.texture;
    if (texture !== undefined) used.add(texture);
  }
  const images = new Map<string, TextureImage>();
  let left = mostBytesOfAll;
  for (const id of [...used].slice(0, mostTextures)) {
    const image = await imageOf(db, id).catch(() => undefined);
    if (image === undefined || image.bytes.length > left) continue;
    left -= image.bytes.length;
    images.set(id, image);
  }
  return { images, omitted: used.size - images.size };
}

async function imageOf(db: TextureReader, name: string): Promise<TextureImage | undefined> {
  const data = await db.queryTextureData({ name, maxTextureSize: longestSide });
  if (data === undefined || data.bytes.length > mostBytes || Math.max(data.width, data.height) > longestSide)
    return undefined;
  if (data.format === ImageSourceFormat.Jpeg) return { mimeType: 'image/jpeg', bytes: data.bytes };
  return data.format === ImageSourceFormat.Png ? { mimeType: 'image/png', bytes: data.bytes } : undefined;
}
