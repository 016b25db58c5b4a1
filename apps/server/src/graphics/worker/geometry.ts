import { createHash } from 'node:crypto';
import type { Drawable } from './elements.ts';

/** A list of numbers that grows. */
class Growing<T extends Float32Array | Int8Array | Uint32Array> {
  #array: T;
  length = 0;
  readonly #make: (length: number) => T;

  constructor(make: (length: number) => T) {
    this.#make = make;
    this.#array = make(1 << 16);
  }

  /** Makes room for more numbers. @returns where they go; `array` is valid until the next call */
  add(count: number): { array: T; at: number } {
    const at = this.length;
    this.length += count;
    if (this.length > this.#array.length) {
      const larger = this.#make(Math.max(this.length, this.#array.length * 1.5));
      larger.set(this.#array.subarray(0, at));
      this.#array = larger;
    }
    return { array: this.#array, at };
  }

  get array(): T {
    return this.#array;
  }
}

/** A mesh or a set of lines of one appearance. Positions and indices are in the pools of `Geometry`. */
export interface Piece {
  /** Index of the appearance. */
  material: number;
  lines: boolean;
  /** Id, hexadecimal. */
  subCategory: string;
  /** First pair of texture coordinates in their pool; undefined for a piece without a texture. */
  uv: number | undefined;
  /** First vertex in the pools, and their number. */
  vertex: number;
  vertices: number;
  /** First index in the pool, and their number. Indices count from `vertex`. */
  index: number;
  indices: number;
  /** Low and high corner of the vertices. */
  box: Drawable['box'];
}

/** A piece that is drawn as it is. */
export interface Placed {
  /** Index of the element. */
  feature: number;
  piece: Piece;
}

/** A use of a geometry part by an element. */
export interface Instance {
  feature: number;
  part: Part;
  /** Row-major 3 × 4 matrix, relative to the origin of the geometry. */
  transform: Float64Array;
  box: Drawable['box'];
}

/** Geometry that several elements use, in its own coordinates. */
export interface Part {
  pieces: Piece[];
  triangles: number;
  digest: string;
}

/** Surfaces are lit; the fillings and texts of plans are not. */
type PieceKind = 'surface' | 'fill' | 'text' | 'lines';

export interface Appearance {
  kind: PieceKind;
  /** Transparency, blue, green and red, each of 8 bits. */
  tbgr: number;
  /** Id, hexadecimal. */
  subCategory: string;
  /** Id of the texture, hexadecimal. Needs the parameters of the mesh. */
  texture?: string | undefined;
}

/** Colour as red, green, blue, alpha, 0-255, and whether both sides of a face are drawn. */
export interface Material {
  kind: PieceKind;
  texture: string | undefined;
  rgba: readonly [number, number, number, number];
  twoSided: boolean;
}

/** What `exportGraphics` gives for a mesh. */
export interface Mesh {
  points: Float64Array;
  indices: Int32Array;
  normals?: Float32Array;
  /** Texture coordinates, from the lower left corner of the picture. */
  params?: Float32Array;
  isTwoSided?: boolean;
}

/** Everything that is drawn, in memory: about 40 bytes for each vertex and triangle. */
export class Geometry {
  readonly origin: readonly [number, number, number];
  readonly positions = new Growing((length) => new Float32Array(length));
  readonly normals = new Growing((length) => new Int8Array(length));
  readonly indices = new Growing((length) => new Uint32Array(length));
  readonly uvs = new Growing((length) => new Float32Array(length));
  readonly materials: Material[] = [];
  readonly placed: Placed[] = [];
  readonly instances: Instance[] = [];
  readonly #materialIndexes = new Map<string, number>();
  readonly #digests = new Map<number, string[]>();

  constructor(origin: readonly [number, number, number]) {
    this.origin = origin;
  }

  /** Adds a mesh or lines of an element. @param lift height that is added to all vertices, and does not count as a difference */
  place(feature: number, mesh: Mesh, appearance: Appearance, lift = 0): void {
    if (mesh.indices.length === 0) return;
    this.#note(feature, digestOf(mesh, appearance));
    const [x, y, z] = this.origin;
    this.placed.push({ feature, piece: this.#piece(mesh, appearance, [x, y, z - lift]) });
  }

  /** Adds a use of a part by an element. @param transform row-major 3 × 4; undefined for none */
  use(feature: number, part: Part, transform: Float64Array | undefined): void {
    const at = Float64Array.from(transform ?? [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0]);
    this.#note(feature, part.digest, createHash('sha1').update(at).digest('base64url'));
    [3, 7, 11].forEach((n, axis) => (at[n] = (at[n] as number) - (this.origin[axis] as number)));
    this.instances.push({ feature, part, transform: at, box: transformedBox(part, at) });
  }

  /** Makes a part of the meshes and lines that `exportPartGraphics` gives. */
  part(meshes: readonly (Appearance & { mesh: Mesh })[]): Part {
    const digests = meshes.map(({ mesh, ...appearance }) => digestOf(mesh, appearance));
    const pieces = meshes
      .filter(({ mesh }) => mesh.indices.length > 0)
      .map(({ mesh, ...appearance }) => this.#piece(mesh, appearance, [0, 0, 0]));
    return { pieces, triangles: trianglesIn(pieces), digest: digests.sort().join() };
  }

  /** A short hash of everything that is drawn of an element, equal for equal geometry and place. */
  hashOf(feature: number): string {
    const digests = this.#digests.get(feature) ?? [];
    return createHash('sha1').update(digests.toSorted().join()).digest('base64url').slice(0, 10);
  }

  #note(feature: number, ...digests: string[]): void {
    const known = this.#digests.get(feature);
    // One digest replaces several, so that an element with thousands of pieces takes no more memory than another.
    if (known === undefined) this.#digests.set(feature, [digests.join()]);
    else known.push(digests.join());
  }

  #piece(mesh: Mesh, appearance: Appearance, origin: readonly [number, number, number]): Piece {
    const count = mesh.points.length / 3;
    const { array: positions, at } = this.positions.add(count * 3);
    const { array: normals, at: normalsAt } = this.normals.add(count * 3);
    const box = emptyBox();
    for (let n = 0; n < count * 3; n++) {
      const axis = n % 3;
      const value = Math.fround((mesh.points[n] as number) - (origin[axis] as number));
      positions[at + n] = value;
      if (value < (box[axis] as number)) box[axis] = value;
      if (value > (box[axis + 3] as number)) box[axis + 3] = value;
      if (mesh.normals !== undefined) normals[normalsAt + n] = Math.round((mesh.normals[n] as number) * 127);
    }
    const { array: indices, at: index } = this.indices.add(mesh.indices.length);
    indices.set(mesh.indices, index);
    const { kind, subCategory } = appearance;
    const isTextured = appearance.texture !== undefined && hasTextureCoordinates(mesh);
    const texture = isTextured ? appearance.texture : undefined;
    return {
      material: this.#material({ ...appearance, texture }, mesh.isTwoSided ?? false),
      uv: isTextured ? this.#uvs(mesh.params as Float32Array) : undefined,
      lines: kind === 'lines',
      subCategory,
      vertex: at / 3,
      vertices: count,
      index,
      indices: mesh.indices.length,
      box,
    };
  }

  #uvs(params: Float32Array): number {
    const { array, at } = this.uvs.add(params.length);
    for (let n = 0; n < params.length; n += 2) {
      array[at + n] = params[n] as number;
      // Those of glTF begin at the upper left corner.
      array[at + n + 1] = 1 - (params[n + 1] as number);
    }
    return at / 2;
  }

  #material({ tbgr, kind, texture }: Appearance, twoSided: boolean): number {
    const key = `${kind} ${tbgr} ${twoSided} ${texture}`;
    const known = this.#materialIndexes.get(key);
    if (known !== undefined) return known;
    const rgba = [tbgr & 255, (tbgr >>> 8) & 255, (tbgr >>> 16) & 255, 255 - (tbgr >>> 24)] as const;
    this.#materialIndexes.set(key, this.materials.length);
    return this.materials.push({ kind, texture, rgba, twoSided }) - 1;
  }
}

/** A box that contains nothing: low corner, high corner. */
function emptyBox(): [number, number, number, number, number, number] {
  return [Infinity, Infinity, Infinity, -Infinity, -Infinity, -Infinity];
}

export function trianglesIn(pieces: readonly Piece[]): number {
  return pieces.reduce((sum, { lines, indices }) => sum + (lines ? 0 : indices / 3), 0);
}

/** Whether coordinates make sense: a mapping with a scale of 0 gives 10,000,000,000. */
function hasTextureCoordinates({ params = new Float32Array(), points }: Mesh): boolean {
  return params.length === (points.length / 3) * 2 && params.every((value) => Math.abs(value) < 1e5);
}

/** Hash of a mesh as iTwin.js gives it, in world coordinates, so that it does not depend on anything else in the model. */
function digestOf({ points, indices, params }: Mesh, { tbgr, kind, texture }: Appearance): string {
  const hash = createHash('sha1')
    .update(`${tbgr} ${kind === 'lines'}`)
    .update(points)
    .update(indices);
  if (texture !== undefined && params !== undefined) hash.update(texture).update(params);
  return hash.digest('base64url');
}

function transformedBox({ pieces }: Part, m: Float64Array): Drawable['box'] {
  const box = emptyBox();
  for (const { box: own } of pieces)
    for (let corner = 0; corner < 8; corner++) {
      const [x, y, z] = [0, 1, 2].map((axis) => own[axis + ((corner >> axis) & 1 ? 3 : 0)]) as [number, number, number];
      for (let axis = 0; axis < 3; axis++) {
        const [a, b, c, d] = m.subarray(axis * 4, axis * 4 + 4) as unknown as [number, number, number, number];
        const value = a * x + b * y + c * z + d;
        box[axis] = Math.min(box[axis] as number, value);
        box[axis + 3] = Math.max(box[axis + 3] as number, value);
      }
    }
  return box;
}
