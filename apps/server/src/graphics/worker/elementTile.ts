import { FillFlags, GeometryClass } from '@itwin/core-common';

/** Surfaces, letters or lines of one colour and subcategory. Indices are those of triangles or of line segments. */
export interface TilePiece {
  kind: 'fill' | 'text' | 'lines';
  /** Transparency, blue, green and red, each of 8 bits. */
  tbgr: number;
  /** Hexadecimal id. */
  subCategory: string;
  /** x, y, z of each vertex. */
  points: number[];
  indices: number[];
}

interface Table {
  bufferView: string;
  count: number;
  numRgbaPerVertex: number;
  numColors?: number;
  uniformColor?: number;
  /** 0: there are no features; 1: one for all vertices; 2: each vertex names its own. */
  featureIndexType: number;
  featureID?: number;
  usesUnquantizedPositions?: boolean;
  params: { decodedMin: [number, number, number]; decodedMax: [number, number, number] };
}

/** Segments of edges and polylines are stored as quads, of which each vertex knows the other end of its segment. */
interface Segments {
  indices: string;
  nextIndicesAndParams?: string;
  endPointAndQuadIndices?: string;
}

interface Primitive {
  /** 0: mesh; 1: polyline; 2: points. */
  type: number;
  material?: string;
  vertices: Table;
  surface?: { indices: string };
  edges?: { segments?: Segments; polylines?: Segments };
  indices?: string;
  nextIndicesAndParams?: string;
}

interface Material {
  /** 0: mesh; 1: lines; 2: text. */
  type?: number;
  fillFlags?: number;
  lineColor?: number;
  subCategoryId?: string;
  gradient?: { keys?: { color?: number }[] };
  texture?: { name?: string };
}

interface Tile {
  rtcCenter?: [number, number, number];
  bufferViews: Record<string, { byteOffset: number; byteLength: number }>;
  materials?: Record<string, Material>;
  meshes: Record<string, { primitives?: Primitive[] }>;
  namedTextures?: Record<string, { isGlyph?: boolean }>;
}

interface Feature {
  subCategory: string;
  geometryClass: number;
}

/** Plans are drawn on paper: this is the colour of what is filled with that of the background. */
const paper = 0xffffff;

/**
 * Reads what `generateElementGraphics` of iTwin.js makes of one element: a header, a table of features, and a file in a format like
 * glTF 1.0. It is the only way to texts, fillings, patterns and line styles of two-dimensional elements, which
 * `exportGraphics` leaves out.
 */
export class ElementTile {
  readonly #bytes: Buffer;
  readonly #tile: Tile;
  readonly #features: readonly Feature[];
  /** Where the buffers of the tile begin. */
  readonly #start: number;

  constructor(content: Uint8Array) {
    this.#bytes = Buffer.from(content.buffer, content.byteOffset, content.byteLength);
    if (this.#bytes.toString('latin1', 0, 4) !== 'iMdl') throw new Error('the graphics of an element are no tile');
    const table = this.#bytes.readUInt32LE(8);
    this.#features = featuresIn(this.#bytes, table);
    const gltf = table + this.#bytes.readUInt32LE(table);
    const json = this.#bytes.readUInt32LE(gltf + 12);
    this.#start = gltf + 20 + json;
    this.#tile = JSON.parse(this.#bytes.toString('utf8', gltf + 20, this.#start)) as Tile;
  }

  /** Whether letters are pictures, as they are in a tile that is too coarse for them. */
  get hasPicturesOfLetters(): boolean {
    return Object.values(this.#tile.namedTextures ?? {}).some(({ isGlyph }) => isGlyph === true);
  }

  pieces(): TilePiece[] {
    const found = new Map<string, TilePiece>();
    for (const { primitives = [] } of Object.values(this.#tile.meshes))
      for (const primitive of primitives) this.#read(primitive, found);
    return [...found.values()];
  }

  #read(primitive: Primitive, found: Map<string, TilePiece>): void {
    const { vertices, surface, edges, type } = primitive;
    if (vertices.usesUnquantizedPositions === true) throw new Error('the positions of an element are not quantized');
    const material = this.#tile.materials?.[primitive.material ?? ''];
    const add = (indices: readonly number[], kind: TilePiece['kind'], colourOf: (vertex: number) => number): void =>
      this.#add(vertices, material?.subCategoryId, indices, kind, colourOf, found);
    // A region without a filling is drawn as its outline.
    const isFilled = ((material?.fillFlags ?? 0) & (FillFlags.ByView | FillFlags.Always)) !== 0;
    if (type === 0 && surface !== undefined && isFilled && !this.#isPictureOfLetters(material))
      add(
        this.#triplets(surface.indices, 3),
        material?.type === 2 ? 'text' : 'fill',
        this.#fillColours(vertices, material),
      );
    const lineColour = material?.lineColor;
    const ofEdges = lineColour === undefined ? this.#colours(vertices) : () => lineColour;
    for (const segments of [edges?.segments, edges?.polylines])
      if (segments !== undefined) add(this.#segments(segments), 'lines', inked(ofEdges));
    if (type === 1 && primitive.indices !== undefined)
      add(this.#segments(primitive as Segments), 'lines', inked(this.#colours(vertices)));
  }

  #isPictureOfLetters(material: Material | undefined): boolean {
    return this.#tile.namedTextures?.[material?.texture?.name ?? '']?.isGlyph === true;
  }

  /** A gradient is drawn as the first of its colours. */
  #fillColours(vertices: Table, material: Material | undefined): (vertex: number) => number {
    if (((material?.fillFlags ?? 0) & FillFlags.Background) !== 0) return () => paper;
    const first = material?.gradient?.keys?.[0]?.color;
    if (first !== undefined) return () => first;
    return material?.type === 2 ? inked(this.#colours(vertices)) : this.#colours(vertices);
  }

  /** Sorts triangles or segments by colour and subcategory. */
  #add(
    table: Table,
    ofMaterial: string | undefined,
    indices: readonly number[],
    kind: TilePiece['kind'],
    colourOf: (vertex: number) => number,
    found: Map<string, TilePiece>,
  ): void {
    const size = kind === 'lines' ? 2 : 3;
    const placed = new Map<string, number>();
    for (let n = 0; n + size <= indices.length; n += size) {
      const first = indices[n] as number;
      const feature = this.#featureOf(table, first);
      if (feature?.geometryClass === GeometryClass.Construction) continue;
      const tbgr = colourOf(first);
      const subCategory = feature?.subCategory ?? ofMaterial ?? '0x0';
      const key = `${kind} ${tbgr} ${subCategory}`;
      let piece = found.get(key);
      if (piece === undefined) found.set(key, (piece = { kind, tbgr, subCategory, points: [], indices: [] }));
      for (const vertex of indices.slice(n, n + size)) {
        const at = `${key} ${vertex}`;
        let index = placed.get(at);
        if (index === undefined) {
          index = piece.points.length / 3;
          placed.set(at, index);
          piece.points.push(...this.#position(table, vertex));
        }
        piece.indices.push(index);
      }
    }
  }

  #view(name: string): { at: number; length: number } {
    const view = this.#tile.bufferViews[name];
    if (view === undefined) throw new Error('a tile lacks one of its buffers');
    return { at: this.#start + view.byteOffset, length: view.byteLength };
  }

  /** Numbers of 24 bits. @param stride bytes from one to the next */
  #triplets(name: string, stride: number): number[] {
    const { at, length } = this.#view(name);
    return Array.from({ length: Math.floor(length / stride) }, (_, n) => this.#bytes.readUIntLE(at + n * stride, 3));
  }

  /** The ends of segments, each segment once. */
  #segments({ indices, nextIndicesAndParams, endPointAndQuadIndices }: Segments): number[] {
    const from = this.#triplets(indices, 3);
    const to = this.#triplets(nextIndicesAndParams ?? endPointAndQuadIndices ?? '', 4);
    const seen = new Set<number>();
    const ends: number[] = [];
    from.forEach((one, n) => {
      const other = to[n] ?? one;
      const [low, high] = one < other ? [one, other] : [other, one];
      const key = low * 2 ** 24 + high;
      if (low === high || seen.has(key)) return;
      seen.add(key);
      ends.push(low, high);
    });
    return ends;
  }

  #position(table: Table, vertex: number): [number, number, number] {
    const { decodedMin, decodedMax } = table.params;
    const at = this.#view(table.bufferView).at + vertex * table.numRgbaPerVertex * 4;
    return [0, 1, 2].map((axis) => {
      const [low, high] = [decodedMin[axis] as number, decodedMax[axis] as number];
      const step = (high - low) / 65_535;
      const value = low + this.#bytes.readUInt16LE(at + axis * 2) * step + (this.#tile.rtcCenter?.[axis] ?? 0);
      // To the power of ten above the step, so that what was a round number is one again. The last term turns -0 into 0.
      const digit = 10 ** Math.ceil(Math.log10(step || 1));
      return Math.round(value / digit) * digit + 0;
    }) as [number, number, number];
  }

  #colours(table: Table): (vertex: number) => number {
    const { bufferView, numColors = 0, numRgbaPerVertex, count, uniformColor = 0 } = table;
    if (numColors === 0) return () => uniformColor;
    const { at } = this.#view(bufferView);
    const colours = at + count * numRgbaPerVertex * 4;
    return (vertex) => {
      const index = this.#bytes.readUInt16LE(at + vertex * numRgbaPerVertex * 4 + 6);
      const [red, green, blue, alpha] = this.#bytes.subarray(
        colours + index * 4,
        colours + index * 4 + 4,
      ) as Iterable<number> as [number, number, number, number];
      // Colours of the table are multiplied by their alpha.
      const part = (value: number): number => (alpha === 0 ? 0 : Math.min(255, Math.round((value * 255) / alpha)));
      return (((255 - alpha) << 24) | (part(blue) << 16) | (part(green) << 8) | part(red)) >>> 0;
    };
  }

  #featureOf(table: Table, vertex: number): Feature | undefined {
    if (table.featureIndexType === 0) return this.#features[0];
    if (table.featureIndexType === 1) return this.#features[table.featureID ?? 0];
    const at = this.#view(table.bufferView).at + vertex * table.numRgbaPerVertex * 4;
    return this.#features[this.#bytes.readUIntLE(at + 8, 3)];
  }
}

/** White lines and letters are black on paper, as viewers of iTwin.js show them on a white background. */
function inked(colourOf: (vertex: number) => number): (vertex: number) => number {
  return (vertex) => {
    const tbgr = colourOf(vertex);
    return (tbgr & paper) === paper ? tbgr - paper : tbgr;
  };
}

/** Each feature has the id of its element, the index of its subcategory and its class; the ids of subcategories follow. */
function featuresIn(bytes: Buffer, at: number): Feature[] {
  const [length, count] = [bytes.readUInt32LE(at), bytes.readUInt32LE(at + 8)];
  const ids = at + 12 + count * 12;
  return Array.from({ length: count }, (_, n) => {
    const packed = bytes.readUInt32LE(at + 12 + n * 12 + 8);
    const id = ids + (packed & 0xffffff) * 8;
    const subCategory = id + 8 <= at + length ? `0x${bytes.readBigUInt64LE(id).toString(16)}` : '0x0';
    return { subCategory, geometryClass: packed >>> 24 };
  });
}
