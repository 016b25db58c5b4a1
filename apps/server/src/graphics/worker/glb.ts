import { graphicsFormat } from '../drawing.ts';
import { isMirror, rotateNormal, rotationOf } from './matrices.ts';
import type { Chunk } from './chunks.ts';
import type { TextureImage } from './textures.ts';
import type { Geometry, Instance, Material, Part, Piece, Placed } from './geometry.ts';

/** Numbers of glTF. */
const gl = { byte: 5120, unsignedShort: 5123, unsignedInt: 5125, float: 5126, lines: 1, triangles: 4 } as const;
const vertexBuffer = 34962;
const indexBuffer = 34963;

/**
 * Largest step between two positions that 16 bits can tell apart, metres. A mesh of larger extents than 65,535 steps
 * keeps its positions as 32-bit floating point numbers.
 */
const largestStep = 0.005;
/** Number of uses from which a part is instanced instead of copied, and the number of its vertices from which two are enough. */
const fewestUses = 8;
const largePart = 300;

/** Models, categories and subcategories are referred to by their index in the table of elements. */
export interface Kinds {
  modelOf: (feature: number) => number;
  categoryOf: (feature: number) => number;
  subCategoryOf: (piece: Piece) => number;
}

/** Where a vertex goes: a piece, and the matrix of its instance. */
interface Copy {
  feature: number;
  piece: Piece;
  transform: Float64Array | undefined;
}

/**
 * Writes a chunk as binary glTF 2.0, by hand: the buffers are the quantized geometry itself, so that a library would
 * only add the JSON in front of them (docs/adr/0024-graphics.md).
 */
export function writeGlb(
  geometry: Geometry,
  images: ReadonlyMap<string, TextureImage>,
  chunk: Chunk,
  kinds: Kinds,
): Buffer {
  const writer = new GlbWriter(geometry, images);
  const { copies, instanced } = sortUses(chunk);
  for (const group of groupBy(copies, ({ feature, piece }) => keyOf(kinds, feature, piece)))
    writer.addMesh(group, kinds);
  for (const uses of instanced)
    for (const group of groupBy(uses, ({ feature }) => `${kinds.modelOf(feature)} ${kinds.categoryOf(feature)}`))
      for (const piece of (group[0] as Instance).part.pieces) writer.addInstances(piece, group, kinds);
  return writer.end();
}

/** Divides the uses of parts into those that are copied and those that are instanced. */
function sortUses({ placed, instances }: Chunk): { copies: Copy[]; instanced: Instance[][] } {
  const copies: Copy[] = placed.map(({ feature, piece }: Placed) => ({ feature, piece, transform: undefined }));
  const uses = new Map<Part, Instance[]>();
  for (const instance of instances) {
    const known = uses.get(instance.part);
    if (known === undefined) uses.set(instance.part, [instance]);
    else known.push(instance);
  }
  const instanced: Instance[][] = [];
  for (const [part, all] of uses) {
    const rigid = all.filter(({ transform }) => rotationOf(transform) !== undefined);
    const vertices = part.pieces.reduce((sum, piece) => sum + piece.vertices, 0);
    const isWorth = rigid.length >= fewestUses || (rigid.length > 1 && vertices >= largePart);
    if (isWorth) instanced.push(rigid);
    for (const { feature, transform } of isWorth ? all.filter((use) => !rigid.includes(use)) : all)
      for (const piece of part.pieces) copies.push({ feature, piece, transform });
  }
  return { copies, instanced };
}

function keyOf(kinds: Kinds, feature: number, { material, subCategory }: Piece): string {
  return `${kinds.modelOf(feature)} ${kinds.categoryOf(feature)} ${material} ${subCategory}`;
}

/** What a node says of itself. */
function extrasOf(kinds: Kinds, feature: number, piece: Piece): object {
  return {
    model: kinds.modelOf(feature),
    category: kinds.categoryOf(feature),
    subCategory: kinds.subCategoryOf(piece),
  };
}

function groupBy<T>(all: readonly T[], keyFor: (one: T) => string): T[][] {
  const groups = new Map<string, T[]>();
  for (const one of all) {
    const key = keyFor(one);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [one]);
    else group.push(one);
  }
  return [...groups.values()];
}

class GlbWriter {
  readonly #geometry: Geometry;
  readonly #pieces: Buffer[] = [];
  #bytes = 0;
  readonly #views: object[] = [];
  readonly #accessors: object[] = [];
  readonly #meshes: object[] = [];
  readonly #nodes: object[] = [];
  readonly #materials: object[] = [];
  readonly #materialIndexes = new Map<number, number>();
  readonly #images: ReadonlyMap<string, TextureImage>;
  /** Pictures in this chunk, and the indexes of their textures. */
  readonly #pictures: object[] = [];
  readonly #textureIndexes = new Map<string, number>();
  #instanced = false;
  #unlit = false;

  constructor(geometry: Geometry, images: ReadonlyMap<string, TextureImage>) {
    this.#geometry = geometry;
    this.#images = images;
  }

  /** Adds pieces of one appearance, model and category as one mesh. */
  addMesh(copies: readonly Copy[], kinds: Kinds): void {
    const [{ feature, piece }] = copies as [Copy];
    const count = copies.reduce((sum, copy) => sum + copy.piece.vertices, 0);
    const points = new Float32Array(count * 3);
    const features = new Float32Array(count);
    const normals = this.#isLit(piece) ? Buffer.alloc(count * 4) : undefined;
    const indices = new Uint32Array(copies.reduce((sum, copy) => sum + copy.piece.indices, 0));
    const uvs = this.#isTextured(piece) ? new Float32Array(count * 2) : undefined;
    let [vertex, index] = [0, 0];
    for (const copy of copies) {
      uvs?.set(this.#uvsOf(copy.piece), vertex * 2);
      this.#copyVertices(copy, points, normals, vertex);
      features.fill(copy.feature, vertex, vertex + copy.piece.vertices);
      const from = this.#geometry.indices.array;
      const flipped = !piece.lines && copy.transform !== undefined && isMirror(copy.transform);
      for (let n = 0; n < copy.piece.indices; n++)
        // Mirrored triangles would show their back.
        indices[index + (flipped ? n - (n % 3) + 2 - (n % 3) : n)] = (from[copy.piece.index + n] as number) + vertex;
      vertex += copy.piece.vertices;
      index += copy.piece.indices;
    }
    const { position, translation, scale } = this.#quantize(points);
    this.#nodes.push({
      mesh: this.#mesh(
        {
          POSITION: position,
          ...this.#normals(normals, count),
          ...this.#textureCoordinates(uvs),
          _FEATURE: this.#scalars(features),
        },
        indices,
        count,
        piece,
      ),
      translation,
      ...(scale !== 1 && { scale: [scale, scale, scale] }),
      extras: extrasOf(kinds, feature, piece),
    });
  }

  /** Adds a piece of a part once, with a place for each of its uses. */
  addInstances(piece: Piece, uses: readonly Instance[], kinds: Kinds): void {
    const { positions, normals: allNormals, indices } = this.#geometry;
    const points = positions.array.slice(piece.vertex * 3, (piece.vertex + piece.vertices) * 3);
    const normals = this.#isLit(piece) ? Buffer.alloc(piece.vertices * 4) : undefined;
    if (normals !== undefined)
      for (let n = 0; n < piece.vertices; n++)
        for (let axis = 0; axis < 3; axis++)
          normals.writeInt8(allNormals.array[(piece.vertex + n) * 3 + axis] as number, n * 4 + axis);
    const { position, translation, scale } = this.#quantize(points);
    const mesh = this.#mesh(
      {
        POSITION: position,
        ...this.#normals(normals, piece.vertices),
        ...this.#textureCoordinates(this.#isTextured(piece) ? this.#uvsOf(piece).slice() : undefined),
      },
      indices.array.slice(piece.index, piece.index + piece.indices),
      piece.vertices,
      piece,
    );
    const places = new Float32Array(uses.length * 3);
    const rotations = new Float32Array(uses.length * 4);
    const scales = new Float32Array(uses.length * 3);
    uses.forEach(({ transform: m }, n) => {
      const { quaternion, scale: own } = rotationOf(m) as NonNullable<ReturnType<typeof rotationOf>>;
      // The place and the step of the quantized positions are part of each instance, because its matrix comes last.
      const [x, y, z] = translation as [number, number, number];
      for (let axis = 0; axis < 3; axis++) {
        const [a, b, c, d] = [0, 1, 2, 3].map((k) => m[axis * 4 + k]) as [number, number, number, number];
        places[n * 3 + axis] = a * x + b * y + c * z + d;
        scales[n * 3 + axis] = own * scale;
      }
      rotations.set(quaternion, n * 4);
    });
    const [{ feature }] = uses as [Instance];
    this.#instanced = true;
    this.#nodes.push({
      mesh,
      extensions: {
        EXT_mesh_gpu_instancing: {
          attributes: {
            TRANSLATION: this.#floats(places, 'VEC3'),
            ROTATION: this.#floats(rotations, 'VEC4'),
            SCALE: this.#floats(scales, 'VEC3'),
            _FEATURE: this.#floats(
              Float32Array.from(uses, (use) => use.feature),
              'SCALAR',
            ),
          },
        },
      },
      extras: extrasOf(kinds, feature, piece),
    });
  }

  end(): Buffer {
    const used = [
      'KHR_mesh_quantization',
      ...(this.#instanced ? ['EXT_mesh_gpu_instancing'] : []),
      ...(this.#unlit ? ['KHR_materials_unlit'] : []),
    ];
    const json = Buffer.from(
      JSON.stringify({
        asset: {
          version: '2.0',
          generator: 'Offshoot',
          extras: { origin: this.#geometry.origin, format: graphicsFormat },
        },
        extensionsUsed: used,
        extensionsRequired: used.filter((name) => name !== 'KHR_materials_unlit'),
        scene: 0,
        scenes: [{ nodes: this.#nodes.map((_node, n) => n) }],
        nodes: this.#nodes,
        meshes: this.#meshes,
        materials: this.#materials,
        // Rule of glTF: lists are not empty.
        ...(this.#pictures.length > 0 && {
          images: this.#pictures,
          samplers: [{}],
          textures: this.#pictures.map((_picture, source) => ({ sampler: 0, source })),
        }),
        accessors: this.#accessors,
        bufferViews: this.#views,
        buffers: [{ byteLength: this.#bytes }],
      }),
    );
    const padded = Buffer.concat([json, Buffer.alloc(-json.length & 3, ' ')]);
    const head = Buffer.alloc(20);
    head.write('glTF');
    [2, 28 + padded.length + this.#bytes, padded.length].forEach((value, n) => head.writeUInt32LE(value, 4 + n * 4));
    head.write('JSON', 16);
    const binary = Buffer.alloc(8);
    binary.writeUInt32LE(this.#bytes);
    binary.write('BIN\0', 4, 'latin1');
    return Buffer.concat([head, padded, binary, ...this.#pieces]);
  }

  #copyVertices(
    { piece, transform: m }: Copy,
    points: Float32Array,
    normals: Buffer | undefined,
    vertex: number,
  ): void {
    const { positions, normals: allNormals } = this.#geometry;
    const p = positions.array;
    const q = allNormals.array;
    for (let n = 0; n < piece.vertices; n++) {
      const from = (piece.vertex + n) * 3;
      const to = (vertex + n) * 3;
      if (m === undefined) {
        for (let axis = 0; axis < 3; axis++) points[to + axis] = p[from + axis] as number;
        if (normals !== undefined)
          for (let axis = 0; axis < 3; axis++) normals.writeInt8(q[from + axis] as number, (vertex + n) * 4 + axis);
        continue;
      }
      const [x, y, z] = [p[from], p[from + 1], p[from + 2]] as [number, number, number];
      for (let axis = 0; axis < 3; axis++)
        points[to + axis] =
          (m[axis * 4] as number) * x +
          (m[axis * 4 + 1] as number) * y +
          (m[axis * 4 + 2] as number) * z +
          (m[axis * 4 + 3] as number);
      if (normals !== undefined)
        rotateNormal(m, q, from).forEach((value, axis) => normals.writeInt8(value, (vertex + n) * 4 + axis));
    }
  }

  /** Writes positions with 16 bits, or 32 where those are too coarse. One step for all axes, so that normals stay right. */
  #quantize(points: Float32Array): { position: number; translation: number[]; scale: number } {
    const [low, high] = extents(points);
    const extent = Math.max(...high.map((value, axis) => value - (low[axis] as number)));
    const scale = extent > 0 ? extent / 65_535 : 1;
    const count = points.length / 3;
    if (scale > largestStep) {
      const relative = points.map((value, n) => value - (low[n % 3] as number));
      const max = high.map((value, axis) => Math.fround(value - (low[axis] as number)));
      const view = this.#view(bytesOf(relative), vertexBuffer);
      return {
        position: this.#accessor({
          bufferView: view,
          componentType: gl.float,
          count,
          type: 'VEC3',
          min: [0, 0, 0],
          max,
        }),
        translation: low,
        scale: 1,
      };
    }
    const steps = new Uint16Array(count * 4);
    const max = [0, 0, 0];
    for (let n = 0; n < count; n++)
      for (let axis = 0; axis < 3; axis++) {
        const step = Math.round(((points[n * 3 + axis] as number) - (low[axis] as number)) / scale);
        steps[n * 4 + axis] = step;
        if (step > (max[axis] as number)) max[axis] = step;
      }
    const view = this.#view(bytesOf(steps), vertexBuffer, 8);
    const described = { bufferView: view, componentType: gl.unsignedShort, count, type: 'VEC3', min: [0, 0, 0], max };
    return { position: this.#accessor(described), translation: low, scale };
  }

  #normals(normals: Buffer | undefined, count: number): { NORMAL?: number } {
    if (normals === undefined) return {};
    const view = this.#view(normals, vertexBuffer, 4);
    return {
      NORMAL: this.#accessor({ bufferView: view, componentType: gl.byte, normalized: true, count, type: 'VEC3' }),
    };
  }

  #textureCoordinates(uvs: Float32Array | undefined): { TEXCOORD_0?: number } {
    return uvs === undefined ? {} : { TEXCOORD_0: this.#floats(uvs, 'VEC2') };
  }

  #uvsOf({ uv = 0, vertices }: Piece): Float32Array {
    return this.#geometry.uvs.array.subarray(uv * 2, (uv + vertices) * 2);
  }

  /** Whether there is a picture for the texture of a piece; without one it has the colour of its material. */
  #isTextured({ material, uv }: Piece): boolean {
    const texture = this.#geometry.materials[material]?.texture;
    return uv !== undefined && texture !== undefined && this.#images.has(texture);
  }

  #scalars(values: Float32Array): number {
    const view = this.#view(bytesOf(values), vertexBuffer);
    return this.#accessor({ bufferView: view, componentType: gl.float, count: values.length, type: 'SCALAR' });
  }

  #floats(values: Float32Array, type: 'SCALAR' | 'VEC2' | 'VEC3' | 'VEC4'): number {
    const count = values.length / { SCALAR: 1, VEC2: 2, VEC3: 3, VEC4: 4 }[type];
    return this.#accessor({ bufferView: this.#view(bytesOf(values)), componentType: gl.float, count, type });
  }

  #mesh(attributes: object, indices: Uint32Array, vertices: number, { material, lines }: Piece): number {
    const short = vertices < 65_535;
    const accessor = this.#accessor({
      bufferView: this.#view(bytesOf(short ? Uint16Array.from(indices) : indices), indexBuffer),
      componentType: short ? gl.unsignedShort : gl.unsignedInt,
      count: indices.length,
      type: 'SCALAR',
    });
    const primitive = {
      attributes,
      indices: accessor,
      mode: lines ? gl.lines : gl.triangles,
      material: this.#material(material),
    };
    return this.#meshes.push({ primitives: [primitive] }) - 1;
  }

  #isLit({ material }: Piece): boolean {
    return (this.#geometry.materials[material] as Material).kind === 'surface';
  }

  #material(index: number): number {
    const known = this.#materialIndexes.get(index);
    if (known !== undefined) return known;
    const { kind, texture, rgba, twoSided } = this.#geometry.materials[index] as Material;
    const alpha = rgba[3] / 255;
    const isLit = kind === 'surface';
    const picture = this.#texture(texture);
    if (!isLit) this.#unlit = true;
    this.#materialIndexes.set(index, this.#materials.length);
    return (
      this.#materials.push({
        pbrMetallicRoughness: {
          // The colour of a texture replaces that of its material.
          baseColorFactor: [...(picture === undefined ? rgba.slice(0, 3).map(linear) : [1, 1, 1]), alpha],
          ...(picture !== undefined && { baseColorTexture: { index: picture } }),
          metallicFactor: 0,
          roughnessFactor: 0.9,
        },
        ...(alpha < 1 && { alphaMode: 'BLEND' }),
        ...(twoSided && { doubleSided: true }),
        ...(!isLit && { extensions: { KHR_materials_unlit: {} } }),
        // Letters lie upon the filling behind them.
        ...(kind === 'text' && { extras: { text: true } }),
      }) - 1
    );
  }

  /** The index of a texture in this chunk; undefined if there is no picture of it. */
  #texture(id: string | undefined): number | undefined {
    const image = id === undefined ? undefined : this.#images.get(id);
    if (id === undefined || image === undefined) return undefined;
    const known = this.#textureIndexes.get(id);
    if (known !== undefined) return known;
    const bufferView = this.#view(Buffer.from(image.bytes));
    const index = this.#pictures.push({ name: id, mimeType: image.mimeType, bufferView }) - 1;
    this.#textureIndexes.set(id, index);
    return index;
  }

  #view(bytes: Buffer, target?: number, byteStride?: number): number {
    const view = {
      buffer: 0,
      byteOffset: this.#bytes,
      byteLength: bytes.length,
      ...(byteStride !== undefined && { byteStride }),
      ...(target !== undefined && { target }),
    };
    // Rule of glTF: accessors begin at a multiple of their component's size.
    const padding = -bytes.length & 3;
    this.#pieces.push(bytes, Buffer.alloc(padding));
    this.#bytes += bytes.length + padding;
    return this.#views.push(view) - 1;
  }

  #accessor(accessor: object): number {
    return this.#accessors.push(accessor) - 1;
  }
}

function bytesOf(array: Float32Array | Uint16Array | Uint32Array): Buffer {
  return Buffer.from(array.buffer, array.byteOffset, array.byteLength);
}

function extents(points: Float32Array): [low: number[], high: number[]] {
  const low = [Infinity, Infinity, Infinity];
  const high = [-Infinity, -Infinity, -Infinity];
  for (let n = 0; n < points.length; n++) {
    const value = points[n] as number;
    const axis = n % 3;
    if (value < (low[axis] as number)) low[axis] = value;
    if (value > (high[axis] as number)) high[axis] = value;
  }
  return [low, high];
}

/** Colours of glTF are linear, those of iModels are sRGB. */
function linear(value: number): number {
  const part = value / 255;
  const result = part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  return Math.round(result * 1e5) / 1e5;
}
