import {
  Vector3,
  WebGLRenderTarget,
  type OrthographicCamera,
  type PerspectiveCamera,
  type Scene,
  type WebGLRenderer,
} from 'three';
import { pickMaterial } from './materials.ts';

export interface Picked {
  feature: number;
  /** In the coordinates of the scene. */
  point: Vector3;
}

/** Pixels from edge to edge that are looked at, so that lines can be hit. */
const size = 7;

/**
 * Finds what is drawn at a place, by drawing a few pixels with the index of each element instead of its colour. It sees exactly what
 * the user sees: hidden categories, sections and instances included.
 */
export class Picker {
  readonly #material = pickMaterial();
  readonly #target = new WebGLRenderTarget(size, size, { count: 2 });

  pick(
    renderer: WebGLRenderer,
    scene: Scene,
    camera: PerspectiveCamera | OrthographicCamera,
    { x, y, width, height }: { x: number; y: number; width: number; height: number },
  ): Picked | undefined {
    const half = (size - 1) / 2;
    const [left, top] = [Math.round(x) - half, Math.round(y) - half];
    camera.setViewOffset(width, height, left, top, size, size);
    scene.overrideMaterial = this.#material;
    renderer.setClearColor(0x000000, 0);
    renderer.setRenderTarget(this.#target);
    renderer.clear();
    renderer.render(scene, camera);
    scene.overrideMaterial = null;
    const features = new Uint8Array(size * size * 4);
    const depths = new Uint8Array(size * size * 4);
    renderer.readRenderTargetPixels(this.#target, 0, 0, size, size, features, undefined, 0);
    renderer.readRenderTargetPixels(this.#target, 0, 0, size, size, depths, undefined, 1);
    renderer.setRenderTarget(null);
    camera.clearViewOffset();
    const number = (bytes: Uint8Array, at: number): number => new DataView(bytes.buffer).getUint32(at * 4, true);
    for (const at of nearestFirst) {
      const feature = number(features, at);
      if (feature === 0) continue;
      // Rows begin at the bottom.
      const [column, row] = [at % size, size - 1 - Math.floor(at / size)];
      const point = new Vector3(
        ((left + column + 0.5) / width) * 2 - 1,
        1 - ((top + row + 0.5) / height) * 2,
        (number(depths, at) / 16777215) * 2 - 1,
      ).unproject(camera);
      return { feature: feature - 1, point };
    }
    return undefined;
  }

  dispose(): void {
    this.#material.dispose();
    this.#target.dispose();
  }
}

/** The pixels, from the middle outwards. */
const nearestFirst = Array.from({ length: size * size }, (_, at) => at).sort((a, b) => away(a) - away(b));

function away(at: number): number {
  const half = (size - 1) / 2;
  return ((at % size) - half) ** 2 + (Math.floor(at / size) - half) ** 2;
}
