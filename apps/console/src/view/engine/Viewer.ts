import {
  AmbientLight,
  Box3,
  BufferGeometry,
  Color,
  DirectionalLight,
  Float32BufferAttribute,
  Frustum,
  HemisphereLight,
  Line,
  LineBasicMaterial,
  Matrix4,
  OrthographicCamera,
  PerspectiveCamera,
  Plane,
  Points,
  PointsMaterial,
  Scene,
  Sphere,
  Vector3,
  WebGLRenderer,
} from 'three';
import { OrbitControls } from 'three/addons/controls/OrbitControls.js';
import type { Bounds } from '../graphics.ts';
import { readChunk } from './chunk.ts';
import { FeatureColors, Materials } from './materials.ts';
import { Painter } from './Painter.ts';
import { Picker, type Picked } from './Picker.ts';
import { Walk } from './Walk.ts';

export type Triple = [number, number, number];

/** Where a view looks from and to, in the coordinates of the iModel. `height` is what a plan shows of them, from edge to edge. */
export interface Look {
  eye: Triple;
  target: Triple;
  height?: number;
}

export interface Section {
  axis: 'x' | 'y' | 'z';
  /** Coordinate of the plane. */
  at: number;
  /** Which side is kept. */
  keep: 'below' | 'above';
}

export type Direction = 'top' | 'bottom' | 'front' | 'back' | 'left' | 'right' | 'iso';

/** From the target to the eye. The top view is tilted so little that north is up. */
const directions: Record<Direction, Triple> = {
  top: [0, -1e-4, 1],
  bottom: [0, -1e-4, -1],
  front: [0, -1, 0],
  back: [0, 1, 0],
  left: [-1, 0, 0],
  right: [1, 0, 0],
  // As in the pictures that the server makes.
  iso: [0.62, -0.68, 0.5],
};

export interface ViewerOptions {
  canvas: HTMLCanvasElement;
  is2d: boolean;
  bounds: Bounds;
  elements: number;
  /** Movements end at once. */
  still: boolean;
  onLook: (look: Look) => void;
  onFrame: () => void;
}

/** How far from the middle of a box the camera has to be to show all of it, with a margin. */
function distanceToShow(box: Box3, from: Vector3, aspect: number): number {
  const right = new Vector3(0, 0, 1).cross(from).normalize();
  const up = from.clone().cross(right);
  const half = Math.tan((fieldOfView * Math.PI) / 360) * 0.92;
  const size = box.getSize(new Vector3()).divideScalar(2);
  let distance = 0;
  for (let corner = 0; corner < 8; corner++) {
    const signs = [0, 1, 2].map((bit) => (((corner >> bit) & 1) === 1 ? 1 : -1));
    const at = size.clone().multiply(new Vector3(...(signs as Triple)));
    const sideways = Math.max(Math.abs(at.dot(right)) / (half * aspect), Math.abs(at.dot(up)) / half);
    distance = Math.max(distance, sideways + at.dot(from));
  }
  return distance;
}

/** Length of a movement to another view, milliseconds. */
const moveMs = 300;
const fieldOfView = 40;

/** Graphics on a canvas. They are drawn only after something changed. */
export class Viewer {
  readonly #options: ViewerOptions;
  readonly #renderer: WebGLRenderer;
  readonly #scene = new Scene();
  readonly #overlay = new Scene();
  readonly #camera: PerspectiveCamera | OrthographicCamera;
  readonly #controls: OrbitControls;
  readonly #colors: FeatureColors;
  readonly #materials: Materials;
  readonly #picker = new Picker();
  readonly #painter: Painter;
  /** World coordinates of the zero point of the scene, so that 32 bits are exact enough. */
  readonly #origin: Triple;
  readonly #box: Box3;
  readonly #sphere: Sphere;
  readonly #background = new Color();
  #movement = 0;
  #quiet = false;
  #disposed = false;
  #walk: Walk | undefined;

  constructor(options: ViewerOptions) {
    this.#options = options;
    const { canvas, bounds, is2d } = options;
    const { low, high } = bounds;
    this.#origin = [(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, (low[2] + high[2]) / 2];
    this.#box = new Box3(this.#local(low), this.#local(high));
    this.#sphere = this.#box.getBoundingSphere(new Sphere());
    this.#sphere.radius = Math.max(this.#sphere.radius, 0.01);
    this.#renderer = new WebGLRenderer({ canvas, antialias: true, powerPreference: 'high-performance' });
    this.#renderer.setPixelRatio(Math.min(devicePixelRatio, 2));
    this.#renderer.autoClear = false;
    this.#colors = new FeatureColors(options.elements);
    this.#materials = new Materials(this.#colors);
    this.#camera = is2d ? new OrthographicCamera() : new PerspectiveCamera(fieldOfView);
    this.#camera.up.set(0, 0, 1);
    this.#addLights();
    this.#painter = new Painter({
      renderer: this.#renderer,
      canvas,
      scene: this.#scene,
      overlay: this.#overlay,
      camera: this.#camera,
      background: this.#background,
      place: () => this.#placePlanes(),
      onFrame: options.onFrame,
    });
    this.#controls = new OrbitControls(this.#camera, canvas);
    this.#controls.zoomToCursor = true;
    this.#controls.screenSpacePanning = true;
    this.#controls.enableRotate = !is2d;
    if (is2d) this.#controls.mouseButtons.LEFT = this.#controls.mouseButtons.RIGHT;
    this.#controls.addEventListener('change', () => {
      this.invalidate();
      if (!this.#quiet) options.onLook(this.look());
    });
    // A movement that the user interrupts stops there.
    this.#controls.addEventListener('start', () => cancelAnimationFrame(this.#movement));
    this.fit(is2d ? 'top' : 'iso', true);
  }

  #local([x, y, z]: readonly [number, number, number]): Vector3 {
    return new Vector3(x - this.#origin[0], y - this.#origin[1], z - this.#origin[2]);
  }

  #world({ x, y, z }: Vector3): Triple {
    return [x + this.#origin[0], y + this.#origin[1], z + this.#origin[2]];
  }

  /** Light comes with the camera from over the left shoulder, so that no side is black. */
  #addLights(): void {
    const sun = new DirectionalLight(0xffffff, 1.7);
    sun.position.set(-0.6, 0.9, 1.2);
    this.#camera.add(sun);
    this.#scene.add(this.#camera, new HemisphereLight(0xffffff, 0x8a8f98, 1.1), new AmbientLight(0xffffff, 0.55));
    const sky = this.#scene.children.find((child) => child instanceof HemisphereLight);
    sky?.position.set(0, 0, 1);
  }

  /** Adds a chunk. @returns false if the view was closed meanwhile */
  async add(bytes: ArrayBuffer): Promise<boolean> {
    const { group, origin, parts } = await readChunk(bytes, this.#materials);
    if (this.#disposed) return false;
    group.position.copy(this.#local(origin));
    this.#scene.add(group);
    group.updateMatrixWorld();
    this.#painter.add(parts);
    return true;
  }

  /** Tells that no more chunks are to come. */
  complete(): void {
    this.#painter.complete();
  }

  /** How much sooner a chunk is wanted than others, the smaller the sooner: what is in view, and what is near. */
  farness({ low, high }: Bounds): number {
    const box = new Box3(this.#local(low), this.#local(high));
    this.#camera.updateMatrixWorld();
    const seen = new Frustum().setFromProjectionMatrix(
      new Matrix4().multiplyMatrices(this.#camera.projectionMatrix, this.#camera.matrixWorldInverse),
    );
    return box.distanceToPoint(this.#camera.position) + (seen.intersectsBox(box) ? 0 : 1e9);
  }

  setBackground(color: string): void {
    this.#background.set(color);
    this.invalidate();
  }

  resize(width: number, height: number): void {
    if (width === 0 || height === 0) return;
    this.#renderer.setSize(width, height, false);
    if (this.#camera instanceof PerspectiveCamera) this.#camera.aspect = width / height;
    else {
      const half = this.#camera.top || this.#sphere.radius;
      [this.#camera.top, this.#camera.bottom] = [half, -half];
      [this.#camera.left, this.#camera.right] = [(-half * width) / height, (half * width) / height];
    }
    this.#camera.updateProjectionMatrix();
    this.#painter.resize();
  }

  setHidden(models: ReadonlySet<number>, categories: ReadonlySet<number>, subCategories: ReadonlySet<number>): void {
    this.#painter.setHidden(
      ({ model, category, subCategory }) =>
        models.has(model) || categories.has(category) || (subCategory !== undefined && subCategories.has(subCategory)),
    );
  }

  setColors(colors: readonly ([number, number, number, number] | undefined)[], selected: number | undefined): void {
    this.#colors.set(colors, selected);
    this.invalidate();
  }

  setEdges(on: boolean): void {
    this.#painter.setEdges(on);
  }

  setSection(section: Section | undefined): void {
    this.#renderer.clippingPlanes = [];
    if (section !== undefined) {
      const { axis, at, keep } = section;
      const n = { x: 0, y: 1, z: 2 }[axis];
      const normal = new Vector3().setComponent(n, keep === 'below' ? -1 : 1);
      const local = at - (this.#origin[n] ?? 0);
      this.#renderer.clippingPlanes = [new Plane(normal, keep === 'below' ? local : -local)];
    }
    this.invalidate();
  }

  /** Shows points that were measured, and the line between them. */
  setMeasure(points: readonly Triple[]): void {
    this.#overlay.clear();
    const geometry = new BufferGeometry();
    const local = points.map((point) => this.#local(point));
    geometry.setAttribute(
      'position',
      new Float32BufferAttribute(
        local.flatMap((point) => point.toArray()),
        3,
      ),
    );
    const color = 0xe8590c;
    if (points.length > 0)
      this.#overlay.add(
        new Points(geometry, new PointsMaterial({ color, size: 9, sizeAttenuation: false, depthTest: false })),
      );
    if (points.length > 1) this.#overlay.add(new Line(geometry, new LineBasicMaterial({ color, depthTest: false })));
    this.invalidate();
  }

  /** Where a point is on the canvas, in CSS pixels; undefined if it is behind the camera. */
  onCanvas(point: Triple): { x: number; y: number } | undefined {
    const { clientWidth, clientHeight } = this.#options.canvas;
    const place = this.#local(point).project(this.#camera);
    if (place.z > 1) return undefined;
    return { x: ((place.x + 1) / 2) * clientWidth, y: ((1 - place.y) / 2) * clientHeight };
  }

  /** What is drawn at a place of the canvas, in CSS pixels. */
  pick(x: number, y: number): { feature: number; point: Triple } | undefined {
    const { clientWidth, clientHeight } = this.#options.canvas;
    this.#placePlanes();
    const place = { x, y, width: clientWidth, height: clientHeight };
    const picked: Picked | undefined = this.#painter.withAll(() =>
      this.#picker.pick(this.#renderer, this.#scene, this.#camera, place),
    );
    return picked === undefined ? undefined : { feature: picked.feature, point: this.#world(picked.point) };
  }

  look(): Look {
    const look: Look = { eye: this.#world(this.#camera.position), target: this.#world(this.#controls.target) };
    if (this.#camera instanceof OrthographicCamera)
      look.height = (this.#camera.top - this.#camera.bottom) / this.#camera.zoom;
    return look;
  }

  /** Takes over a view, without telling of it. */
  setLook({ eye, target, height }: Look): void {
    this.#quiet = true;
    cancelAnimationFrame(this.#movement);
    this.#camera.position.copy(this.#local(eye));
    this.#controls.target.copy(this.#local(target));
    if (this.#camera instanceof OrthographicCamera && height !== undefined && height > 0)
      this.#camera.zoom = (this.#camera.top - this.#camera.bottom) / height;
    this.#camera.updateProjectionMatrix();
    this.#controls.update();
    this.#quiet = false;
    this.invalidate();
  }

  /** Shows everything, from the present direction or another one. */
  fit(direction?: Direction, atOnce = false): void {
    this.fitBox(this.#box, direction, atOnce);
  }

  /** Shows the box of an element: low and high corner, in the coordinates of the iModel. */
  fitElement(box: readonly number[]): void {
    const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0] = box;
    this.fitBox(new Box3(this.#local([a, b, c]), this.#local([d, e, f])));
  }

  private fitBox(box: Box3, direction?: Direction, atOnce = false): void {
    const center = box.getCenter(new Vector3());
    const from = (
      direction === undefined
        ? this.#camera.position.clone().sub(this.#controls.target)
        : new Vector3(...directions[direction])
    ).normalize();
    const { clientWidth: width, clientHeight: height } = this.#options.canvas;
    const aspect = width === 0 || height === 0 ? 1 : width / height;
    const distance = Math.max(distanceToShow(box, from, aspect), this.#sphere.radius / 200);
    const eye = center.clone().addScaledVector(from, distance);
    const look: Look = { eye: this.#world(eye), target: this.#world(center) };
    if (this.#camera instanceof OrthographicCamera) {
      const flat = box.getSize(new Vector3());
      look.height = Math.max(flat.y, flat.x / aspect, this.#sphere.radius / 500) * 1.1;
    }
    this.#moveTo(look, atOnce || this.#options.still);
  }

  #moveTo(look: Look, atOnce: boolean): void {
    const from = this.look();
    const begin = performance.now();
    const step = (now: number) => {
      const done = atOnce ? 1 : Math.min(1, (now - begin) / moveMs);
      const share = 1 - (1 - done) ** 3;
      const between = (a: Triple, b: Triple): Triple =>
        [0, 1, 2].map((n) => (a[n] as number) + ((b[n] as number) - (a[n] as number)) * share) as Triple;
      this.setLook({
        eye: between(from.eye, look.eye),
        target: between(from.target, look.target),
        ...(look.height !== undefined && {
          height: (from.height ?? look.height) + (look.height - (from.height ?? look.height)) * share,
        }),
      });
      this.#options.onLook(this.look());
      if (done < 1) this.#movement = requestAnimationFrame(step);
    };
    step(begin);
  }

  /** Walks through the model, or turns around it again. */
  setWalking(on: boolean): void {
    if (on === (this.#walk !== undefined)) return;
    this.#walk?.stop();
    this.#controls.enabled = !on;
    const { canvas, bounds, onLook } = this.#options;
    this.#walk = on
      ? new Walk(canvas, bounds, { look: () => this.look(), setLook: (look) => this.setLook(look), onLook })
      : undefined;
  }

  /** @returns whether the key is one that walks, and the view does */
  walkKey(code: string, isDown: boolean, shift: boolean): boolean {
    return this.#walk?.key(code, isDown, shift) ?? false;
  }

  /** Turns around the target, by shares of a turn. */
  turn(right: number, up: number): void {
    if (!this.#controls.enableRotate) return this.shift(-right * 4, up * 4);
    const offset = this.#camera.position.clone().sub(this.#controls.target);
    offset.applyAxisAngle(new Vector3(0, 0, 1), right * 2 * Math.PI);
    const side = new Vector3().crossVectors(offset, new Vector3(0, 0, 1)).normalize();
    const turned = offset.clone().applyAxisAngle(side, up * 2 * Math.PI);
    if (Math.abs(turned.clone().normalize().z) < 0.999) offset.copy(turned);
    this.#camera.position.copy(this.#controls.target).add(offset);
    this.#controls.update();
  }

  /** Moves sideways and up, by shares of what is seen. */
  shift(right: number, up: number): void {
    const height = this.look().height ?? 2 * this.#distance() * Math.tan((fieldOfView * Math.PI) / 360);
    const move = new Vector3(right * height, up * height, 0).applyQuaternion(this.#camera.quaternion);
    this.#camera.position.add(move);
    this.#controls.target.add(move);
    this.#controls.update();
  }

  /** Comes nearer or goes away. @param factor what is seen is that many times as large */
  zoom(factor: number): void {
    if (this.#camera instanceof OrthographicCamera) {
      this.#camera.zoom *= factor;
      this.#camera.updateProjectionMatrix();
    } else this.#camera.position.sub(this.#controls.target).divideScalar(factor).add(this.#controls.target);
    this.#controls.update();
    this.invalidate();
    this.#options.onLook(this.look());
  }

  #distance(): number {
    return this.#camera.position.distanceTo(this.#controls.target);
  }

  /** Draws soon. */
  invalidate(): void {
    this.#painter.invalidate();
  }

  /** The near and far planes close around what there is, so that depth is exact. */
  #placePlanes(): void {
    const { radius, center } = this.#sphere;
    const distance = this.#camera.position.distanceTo(center);
    this.#camera.near =
      this.#camera instanceof PerspectiveCamera ? Math.max(distance - radius * 1.1, radius / 2000) : -radius * 4;
    this.#camera.far = distance + radius * 1.2 + 0.1;
    this.#camera.updateProjectionMatrix();
    this.#camera.updateMatrixWorld();
  }

  dispose(): void {
    this.#disposed = true;
    this.#walk?.stop();
    cancelAnimationFrame(this.#movement);
    this.#controls.dispose();
    this.#materials.dispose();
    this.#picker.dispose();
    this.#painter.dispose();
    this.#renderer.dispose();
  }
}
