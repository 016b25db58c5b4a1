import type { Box } from '../drawing.ts';
import type { Drawable } from './elements.ts';
import type { Geometry, Instance, Part, Placed } from './geometry.ts';
import type { TextureImage } from './textures.ts';

/** What one chunk contains. */
export interface Chunk {
  placed: Placed[];
  instances: Instance[];
}

/** Something that goes into a chunk as a whole. */
interface Entry {
  placed: Placed | undefined;
  instance: Instance | undefined;
  box: Drawable['box'];
  bytes: number;
}

/** Bytes of a chunk before it is compressed: between 1 and 2 MB after it. */
const chunkBytes = 4_000_000;
/** A vertex has a position, a normal and the index of its element; an index has two or four bytes. */
const bytesPerVertex = 16;
const bytesPerIndex = 3;
const bytesPerInstance = 36;

/**
 * Splits what is drawn into chunks. The first one has the largest elements of the whole model, so that a view shows the
 * shape of it at once; the others are split by space. What has textures is in chunks of its own.
 */
export function chunksOf(geometry: Geometry, images: ReadonlyMap<string, TextureImage>): Chunk[] {
  const entries = [
    ...geometry.placed.map((placed): Entry => ({
      placed,
      instance: undefined,
      box: placed.piece.box,
      bytes: placed.piece.vertices * bytesPerVertex + placed.piece.indices * bytesPerIndex,
    })),
    ...geometry.instances.map((instance): Entry => ({
      placed: undefined,
      instance,
      box: instance.box,
      bytes: bytesPerInstance,
    })),
  ].sort((a, b) => featureOf(a) - featureOf(b));
  const textureOf = texturesIn(geometry, images);
  const plain = entries.filter((entry) => textureOf(entry) === undefined);
  if (plain.length === entries.length) return plainChunks(entries);
  const pictures = [...images.values()].reduce((sum, { bytes }) => sum + bytes.length, 0);
  if (bytesOf(entries) + pictures < chunkBytes / 4) return [toChunk(entries)];
  const [first, ...others] = plainChunks(plain);
  const textured = texturedGroups(entries, textureOf, images).map(toChunk);
  return first === undefined ? textured : [first, ...textured, ...others];
}

/** The texture of an entry, if there is a picture of it. That of a part is the first of its pieces. */
function texturesIn({ materials }: Geometry, images: ReadonlyMap<string, TextureImage>) {
  return ({ placed, instance }: Entry): string | undefined => {
    for (const { material } of placed === undefined ? (instance?.part.pieces ?? []) : [placed.piece]) {
      const texture = materials[material]?.texture;
      if (texture !== undefined && images.has(texture)) return texture;
    }
    return undefined;
  };
}

/** Sorts what has textures by them, so that each picture is in few chunks. */
function texturedGroups(
  entries: readonly Entry[],
  textureOf: (entry: Entry) => string | undefined,
  images: ReadonlyMap<string, TextureImage>,
): Entry[][] {
  const byTexture = new Map<string, Entry[]>();
  for (const entry of entries) {
    const texture = textureOf(entry);
    if (texture === undefined) continue;
    const known = byTexture.get(texture);
    if (known === undefined) byTexture.set(texture, [entry]);
    else known.push(entry);
  }
  const groups: Entry[][] = [];
  let bytes = Infinity;
  for (const [texture, all] of byTexture) {
    const picture = images.get(texture)?.bytes.length ?? 0;
    for (const part of split(all)) {
      const own = bytesOf(part) + picture;
      if (bytes + own > chunkBytes) {
        groups.push([]);
        bytes = 0;
      }
      groups.at(-1)?.push(...part);
      bytes += own;
    }
  }
  return groups;
}

function plainChunks(entries: readonly Entry[]): Chunk[] {
  if (entries.length === 0) return [];
  let first = 0;
  for (let bytes = 0; first < entries.length && bytes < chunkBytes; first++) bytes += (entries[first] as Entry).bytes;
  // A small rest is not worth another request.
  const rest = entries.slice(first);
  if (bytesOf(rest) < chunkBytes / 4) return [toChunk(entries)];
  return [toChunk(entries.slice(0, first)), ...split(rest).map(toChunk)];
}

/** Elements are numbered from the largest to the smallest. */
function featureOf({ placed, instance }: Entry): number {
  return (placed ?? (instance as Instance)).feature;
}

/** Bytes of entries with the geometry of the parts that they use. */
function bytesOf(entries: readonly Entry[]): number {
  const parts = new Set<Part>();
  let bytes = 0;
  for (const entry of entries) {
    bytes += entry.bytes;
    if (entry.instance !== undefined) parts.add(entry.instance.part);
  }
  for (const { pieces } of parts)
    for (const { vertices, indices } of pieces) bytes += vertices * bytesPerVertex + indices * bytesPerIndex;
  return bytes;
}

/** Halves entries along the longest side of their extents until each group is small enough. */
function split(entries: readonly Entry[]): Entry[][] {
  if (entries.length === 1 || bytesOf(entries) <= chunkBytes) return [[...entries]];
  const sides = [0, 1, 2].map((axis) => {
    let [low, high] = [Infinity, -Infinity];
    for (const { box } of entries) {
      low = Math.min(low, middle(box, axis));
      high = Math.max(high, middle(box, axis));
    }
    return high - low;
  });
  const axis = sides.indexOf(Math.max(...sides));
  const sorted = entries.toSorted((a, b) => middle(a.box, axis) - middle(b.box, axis) || featureOf(a) - featureOf(b));
  const half = sorted.reduce((sum, { bytes }) => sum + bytes, 0) / 2;
  let [at, bytes] = [0, 0];
  while (at < sorted.length - 1 && (at === 0 || bytes < half)) bytes += (sorted[at++] as Entry).bytes;
  return [...split(sorted.slice(0, at)), ...split(sorted.slice(at))];
}

function middle(box: Drawable['box'], axis: number): number {
  return ((box[axis] as number) + (box[axis + 3] as number)) / 2;
}

function toChunk(entries: readonly Entry[]): Chunk {
  return {
    placed: entries.flatMap(({ placed }) => placed ?? []),
    instances: entries.flatMap(({ instance }) => instance ?? []),
  };
}

/** The extents of a chunk in world coordinates. */
export function boundsOfChunk({ placed, instances }: Chunk, origin: readonly [number, number, number]): Box {
  const bounds: Box = { low: [Infinity, Infinity, Infinity], high: [-Infinity, -Infinity, -Infinity] };
  for (const box of [...placed.map(({ piece }) => piece.box), ...instances.map((instance) => instance.box)])
    for (const axis of [0, 1, 2] as const) {
      bounds.low[axis] = Math.min(bounds.low[axis], box[axis] + origin[axis]);
      bounds.high[axis] = Math.max(bounds.high[axis], (box[axis + 3] as number) + origin[axis]);
    }
  return bounds;
}
