import type { Geometry, Material, Piece } from './geometry.ts';
import { writePng } from './png.ts';
import { rotateNormal } from './matrices.ts';
import { halved, type Texels } from './texels.ts';

/** Rendered at twice the size of the large picture, which smooths the edges. */
const width = 1600;
const height = 1000;
/** Numbers of each projected vertex: place in the picture, depth, brightness, texture coordinates. */
const stride = 6;
/** Part of the picture that the model may fill. */
const filled = 0.9;
/** Colour of the background at the top and at the bottom. */
const background = { top: [247, 249, 251], bottom: [226, 231, 237] } as const;

type Vector = readonly [number, number, number];

/** A view: axes of the picture to the right and up, and the axis towards the eye. */
interface View {
  right: Vector;
  up: Vector;
  eye: Vector;
}
const isometric: View = viewFrom([0.62, -0.68, 0.5]);
const plan: View = { right: [1, 0, 0], up: [0, 1, 0], eye: [0, 0, 1] };

function viewFrom(direction: Vector): View {
  const eye = normalized(direction);
  const right = normalized([-eye[1], eye[0], 0]);
  const up: Vector = [
    eye[1] * right[2] - eye[2] * right[1],
    eye[2] * right[0] - eye[0] * right[2],
    eye[0] * right[1] - eye[1] * right[0],
  ];
  return { right, up, eye };
}

function normalized(v: Vector): Vector {
  const length = Math.hypot(...v);
  return [v[0] / length, v[1] / length, v[2] / length];
}

function dot(a: Vector, x: number, y: number, z: number): number {
  return a[0] * x + a[1] * y + a[2] * z;
}

/** Light from the upper left, behind the viewer, in world coordinates. */
function lightOf({ right, up, eye }: View): Vector {
  return normalized(
    [0, 1, 2].map(
      (n) => -0.45 * (right[n] as number) + 0.75 * (up[n] as number) + (eye[n] as number),
    ) as unknown as Vector,
  );
}

/**
 * Draws the picture of a model, isometric or in plan.
 * @param hidden ids of subcategories that are left out
 * @param textures by their ids; a surface whose texture is missing has the colour of its material
 * @returns PNGs of 400 × 250 and 800 × 500 pixels; undefined if there is nothing to see
 */
export function drawPicture(
  all: Geometry,
  is2d: boolean,
  hidden: ReadonlySet<string>,
  textures: ReadonlyMap<string, Texels>,
): { small: Buffer; large: Buffer } | undefined {
  const canvas = new Canvas(hidden.size === 0 ? all : withoutHidden(all, hidden), textures, is2d ? plan : isometric);
  if (!canvas.fit()) return undefined;
  // What is transparent is blended over what is not.
  canvas.drawAll((alpha) => alpha === 255);
  canvas.drawAll((alpha) => alpha < 255);
  const rgb = canvas.finish();
  const large = halved(rgb, width, height);
  return {
    small: writePng(halved(large, width / 2, height / 2), width / 4, height / 4),
    large: writePng(large, width / 2, height / 2),
  };
}

/** What a picture is drawn from. */
type Shown = Pick<Geometry, 'positions' | 'normals' | 'indices' | 'uvs' | 'materials' | 'placed' | 'instances'>;

function withoutHidden(
  { positions, normals, indices, uvs, materials, placed, instances }: Geometry,
  hidden: ReadonlySet<string>,
): Shown {
  return {
    positions,
    normals,
    indices,
    uvs,
    materials,
    placed: placed.filter(({ piece }) => !hidden.has(piece.subCategory)),
    // All pieces of a part are in one subcategory.
    instances: instances.filter(({ part }) => !hidden.has(part.pieces[0]?.subCategory ?? '')),
  };
}

class Canvas {
  readonly #geometry: Shown;
  readonly #textures: ReadonlyMap<string, Texels>;
  readonly #view: View;
  readonly #light: Vector;
  readonly #rgb = new Uint8Array(width * height * 3);
  /** Distance towards the eye, the larger the nearer. */
  readonly #depth = new Float32Array(width * height).fill(-Infinity);
  #scale = 1;
  #centre: [number, number] = [0, 0];
  /** The vertices of the piece that is drawn. */
  #points = new Float32Array(1024 * stride);

  constructor(geometry: Shown, textures: ReadonlyMap<string, Texels>, view: View) {
    this.#geometry = geometry;
    this.#textures = textures;
    this.#view = view;
    this.#light = lightOf(view);
    for (let y = 0; y < height; y++)
      for (let c = 0; c < 3; c++) {
        const [top, bottom] = [background.top[c] as number, background.bottom[c] as number];
        const value = Math.round(top + ((bottom - top) * y) / height);
        for (let x = 0; x < width; x++) this.#rgb[(y * width + x) * 3 + c] = value;
      }
  }

  /** Chooses the scale. @returns false if there is nothing to see */
  fit(): boolean {
    const { placed, instances } = this.#geometry;
    const boxes = [...placed.map(({ piece }) => piece.box), ...instances.map(({ box }) => box)].filter(([x]) =>
      Number.isFinite(x),
    );
    if (boxes.length === 0) return false;
    const [x0, x1] = this.#range(boxes, this.#view.right);
    const [y0, y1] = this.#range(boxes, this.#view.up);
    this.#centre = [(x0 + x1) / 2, (y0 + y1) / 2];
    this.#scale = filled * Math.min(width / Math.max(x1 - x0, 1e-6), height / Math.max(y1 - y0, 1e-6));
    return x1 - x0 > 0 || y1 - y0 > 0;
  }

  /**
   * Extents along an axis of the picture. Boxes far from all others are left out, because one element that was placed
   * by mistake would make everything else too small to see.
   */
  #range(boxes: readonly (readonly number[])[], axis: Vector): [number, number] {
    const ranges = boxes.map((box) => {
      let [low, high] = [0, 0];
      axis.forEach((part, n) => {
        const [a, b] = [part * (box[n] as number), part * (box[n + 3] as number)];
        low += Math.min(a, b);
        high += Math.max(a, b);
      });
      return [low, high] as const;
    });
    const at = (values: number[], share: number): number =>
      values.sort((a, b) => a - b)[Math.floor((values.length - 1) * share)] as number;
    const lows = ranges.map(([low]) => low);
    const highs = ranges.map(([, high]) => high);
    const [q0, q1] = [at(lows, 0.1), at(highs, 0.9)];
    const reach = 4 * Math.max(q1 - q0, 1e-6);
    let [low, high] = [Infinity, -Infinity];
    for (const [from, to] of ranges)
      if (from >= q0 - reach && to <= q1 + reach) [low, high] = [Math.min(low, from), Math.max(high, to)];
    return low <= high ? [low, high] : [q0, q1];
  }

  /** Draws what has an alpha that is asked for. */
  drawAll(isWanted: (alpha: number) => boolean): void {
    const { placed, instances, materials } = this.#geometry;
    const draw = (piece: Piece, transform: Float64Array | undefined): void => {
      const material = materials[piece.material] as Material;
      if (!isWanted(material.rgba[3]) || material.rgba[3] < 8) return;
      this.#project(piece, transform, material.kind);
      if (piece.lines) this.#drawLines(piece, material);
      else this.#drawTriangles(piece, material);
    };
    for (const { piece } of placed) draw(piece, undefined);
    for (const { part, transform } of instances) for (const piece of part.pieces) draw(piece, transform);
  }

  #project({ vertex, vertices, lines, uv }: Piece, m: Float64Array | undefined, kind: Material['kind']): void {
    const { positions, normals, uvs } = this.#geometry;
    const p = positions.array;
    const q = normals.array;
    if (this.#points.length < vertices * stride) this.#points = new Float32Array(vertices * stride * 1.5);
    const { right, up, eye } = this.#view;
    for (let n = 0; n < vertices; n++) {
      const at = (vertex + n) * 3;
      let [x, y, z] = [p[at], p[at + 1], p[at + 2]] as [number, number, number];
      let [u, v, w] = [q[at], q[at + 1], q[at + 2]] as [number, number, number];
      if (m !== undefined) {
        [x, y, z] = [0, 4, 8].map(
          (r) => (m[r] as number) * x + (m[r + 1] as number) * y + (m[r + 2] as number) * z + (m[r + 3] as number),
        ) as [number, number, number];
        if (!lines) [u, v, w] = rotateNormal(m, q, at);
      }
      this.#points[n * stride] = width / 2 + (dot(right, x, y, z) - this.#centre[0]) * this.#scale;
      this.#points[n * stride + 1] = height / 2 - (dot(up, x, y, z) - this.#centre[1]) * this.#scale;
      // Letters lie upon the filling behind them.
      this.#points[n * stride + 2] = dot(eye, x, y, z) * this.#scale + (kind === 'text' ? 1 : 0);
      // Faces away from the light keep half of their brightness; which side is the front does not matter.
      const facing = dot(eye, u, v, w) < 0 ? -1 : 1;
      this.#points[n * stride + 3] =
        kind !== 'surface' ? 1 : 0.5 + (0.5 * Math.max(0, facing * dot(this.#light, u, v, w))) / 127;
      if (uv === undefined) continue;
      this.#points[n * stride + 4] = uvs.array[(uv + n) * 2] as number;
      this.#points[n * stride + 5] = uvs.array[(uv + n) * 2 + 1] as number;
    }
  }

  #drawTriangles({ index, indices, uv }: Piece, { rgba, texture }: Material): void {
    const all = this.#geometry.indices.array;
    const texels = uv === undefined || texture === undefined ? undefined : this.#textures.get(texture);
    for (let n = index; n < index + indices; n += 3)
      this.#fill(
        (all[n] as number) * stride,
        (all[n + 1] as number) * stride,
        (all[n + 2] as number) * stride,
        rgba,
        texels,
      );
  }

  #fill(a: number, b: number, c: number, rgba: Material['rgba'], texels: Texels | undefined): void {
    const p = this.#points;
    const [ax, ay, bx, by, cx, cy] = [p[a], p[a + 1], p[b], p[b + 1], p[c], p[c + 1]] as [
      number,
      number,
      number,
      number,
      number,
      number,
    ];
    const area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax);
    if (area === 0 || !Number.isFinite(area)) return;
    const x0 = Math.max(0, Math.ceil(Math.min(ax, bx, cx) - 0.5));
    const x1 = Math.min(width - 1, Math.floor(Math.max(ax, bx, cx) - 0.5));
    const y0 = Math.max(0, Math.ceil(Math.min(ay, by, cy) - 0.5));
    const y1 = Math.min(height - 1, Math.floor(Math.max(ay, by, cy) - 0.5));
    const opacity = rgba[3] / 255;
    const colour = [rgba[0], rgba[1], rgba[2]];
    const size = texels?.sizeFor(this.#textureArea(a, b, c) / Math.abs(area)) ?? 0;
    for (let y = y0; y <= y1; y++)
      for (let x = x0; x <= x1; x++) {
        const [u, v] = [x + 0.5, y + 0.5];
        const wa = ((bx - u) * (cy - v) - (by - v) * (cx - u)) / area;
        const wb = ((cx - u) * (ay - v) - (cy - v) * (ax - u)) / area;
        const wc = 1 - wa - wb;
        if (wa < 0 || wb < 0 || wc < 0) continue;
        const mix = (n: number): number =>
          wa * (p[a + n] as number) + wb * (p[b + n] as number) + wc * (p[c + n] as number);
        const depth = mix(2);
        const at = y * width + x;
        if (depth <= (this.#depth[at] as number)) continue;
        texels?.read(mix(4), mix(5), size, colour);
        this.#paint(at, colour, mix(3), opacity, depth);
      }
  }

  /** Twice the area of a triangle in its texture, which is 1 × 1. */
  #textureArea(a: number, b: number, c: number): number {
    const p = this.#points;
    const side = (to: number, n: number): number => (p[to + n] as number) - (p[a + n] as number);
    return Math.abs(side(b, 4) * side(c, 5) - side(b, 5) * side(c, 4));
  }

  #drawLines({ index, indices }: Piece, { rgba }: Material): void {
    const all = this.#geometry.indices.array;
    // White lines are drawn dark, as on paper.
    const isPale = rgba[0] + rgba[1] + rgba[2] > 600;
    const colour = isPale ? ([70, 78, 88, rgba[3]] as const) : rgba;
    const p = this.#points;
    for (let n = index; n < index + indices; n += 2) {
      const [a, b] = [(all[n] as number) * stride, (all[n + 1] as number) * stride];
      const [dx, dy] = [(p[b] as number) - (p[a] as number), (p[b + 1] as number) - (p[a + 1] as number)];
      // Lines reach over the picture at most once.
      const steps = Math.min(Math.ceil(Math.max(Math.abs(dx), Math.abs(dy), 1)), 4 * width);
      if (!Number.isFinite(steps)) continue;
      for (let s = 0; s <= steps; s++) {
        const t = s / steps;
        const depth = (p[a + 2] as number) + t * ((p[b + 2] as number) - (p[a + 2] as number)) + 1;
        const [x, y] = [Math.round((p[a] as number) + t * dx), Math.round((p[a + 1] as number) + t * dy)];
        // Two pixels wide, so that a line is one pixel wide in the large picture.
        for (const [ox, oy] of [[0, 0], Math.abs(dx) > Math.abs(dy) ? [0, 1] : [1, 0]] as const) {
          if (x + ox < 0 || x + ox >= width || y + oy < 0 || y + oy >= height) continue;
          const at = (y + oy) * width + x + ox;
          if (depth > (this.#depth[at] as number)) this.#paint(at, colour, 1, colour[3] / 255, depth);
        }
      }
    }
  }

  #paint(at: number, rgb: readonly number[], light: number, opacity: number, depth: number): void {
    for (let c = 0; c < 3; c++) {
      const under = this.#rgb[at * 3 + c] as number;
      this.#rgb[at * 3 + c] = under + opacity * ((rgb[c] as number) * light - under);
    }
    if (opacity === 1) this.#depth[at] = depth;
  }

  /** Darkens the edges of what stands in front of something else. @returns the picture */
  finish(): Uint8Array {
    const step = Math.max(6, width / 160);
    const depth = this.#depth;
    for (let y = 0; y < height - 1; y++)
      for (let x = 0; x < width - 1; x++) {
        const at = y * width + x;
        const own = depth[at] as number;
        const isEdge = [at + 1, at + width].some((other) => {
          const difference = Math.abs(own - (depth[other] as number));
          return difference > step;
        });
        if (isEdge) for (let c = 0; c < 3; c++) this.#rgb[at * 3 + c] = (this.#rgb[at * 3 + c] as number) * 0.72;
      }
    return this.#rgb;
  }
}
