import {
  Frustum,
  HalfFloatType,
  InstancedMesh,
  LineSegments,
  Matrix4,
  Mesh,
  PlaneGeometry,
  Scene,
  WebGLRenderTarget,
  type Color,
  type Material,
  type OrthographicCamera,
  type PerspectiveCamera,
  type WebGLRenderer,
} from 'three';
import type { Part } from './chunk.ts';
import { edgeMaterial } from './materials.ts';

/** Triangles of the first slice, and of the smallest one. */
const firstBudget = 200_000;
const leastBudget = 60_000;
/** A slice that takes longer than this makes the next ones smaller, one that is faster makes them larger, milliseconds. */
const slowMs = 150;
const fastMs = 40;
/** A graphics driver that never reports a slice as drawn is not waited for any longer, milliseconds. */
const longestWaitMs = 10_000;

interface PainterParts {
  renderer: WebGLRenderer;
  canvas: HTMLCanvasElement;
  /** Everything in it that is a part is shown and hidden by the painter. */
  scene: Scene;
  overlay: Scene;
  camera: PerspectiveCamera | OrthographicCamera;
  background: Color;
  /** Called before a picture is begun. */
  place: () => void;
  /** Called after each slice. */
  onFrame: () => void;
}

/**
 * Draws a picture in slices, the largest elements first, and shows each slice at once. One slice is drawn at a time, so that
 * neither a slow graphics card nor software rendering stalls the page; how much a slice has follows from how long the last
 * one took. A movement begins the picture anew, so a large model is shown by its largest elements while it turns. Where one
 * slice is enough, this is an ordinary frame.
 */
export class Painter {
  readonly #parts: PainterParts;
  readonly #edge = new Mesh(new PlaneGeometry(2, 2), edgeMaterial());
  readonly #edgeScene = new Scene();
  readonly #opaque: Part[] = [];
  readonly #transparent: Part[] = [];
  #target: WebGLRenderTarget | undefined;
  #isHidden: (part: Part) => boolean = () => false;
  /** Whether no more parts are to come. What is transparent is drawn last, over everything else. */
  #isComplete = false;
  #edges = true;
  #frame = 0;
  #isNew = true;
  /** Whether nothing of the picture has been shown yet, not even its background. */
  #isBlank = true;
  #queue: Part[] = [];
  #transparentLeft = true;
  #budget = firstBudget;
  #pending: { sync: WebGLSync; since: number } | undefined;
  #disposed = false;

  constructor(parts: PainterParts) {
    this.#parts = parts;
    this.#edgeScene.add(this.#edge);
  }

  /** Adds parts to the picture that is being drawn. */
  add(parts: readonly Part[]): void {
    const before = this.#opaque.length;
    for (const part of parts) {
      part.object.visible = false;
      const isTransparent = (part.object.material as Material).transparent;
      // In the order of the chunks, whatever the slices are.
      if (!isTransparent) part.object.renderOrder = this.#opaque.length;
      (isTransparent ? this.#transparent : this.#opaque).push(part);
    }
    if (!this.#canSlice()) return this.invalidate();
    this.#queue.push(...this.#opaque.slice(before).filter((part) => !this.#isHidden(part)));
    this.#schedule();
  }

  /** Tells that no more parts are to come. */
  complete(): void {
    this.#isComplete = true;
    this.#schedule();
  }

  setHidden(isHidden: (part: Part) => boolean): void {
    this.#isHidden = isHidden;
    this.invalidate();
  }

  setEdges(on: boolean): void {
    this.#edges = on;
    this.invalidate();
  }

  /** Begins the picture anew. */
  invalidate(): void {
    this.#isNew = true;
    this.#parts.canvas.dataset.drawn = 'false';
    this.#schedule();
  }

  resize(): void {
    this.#target?.dispose();
    this.#target = undefined;
    this.invalidate();
  }

  /** Runs something while all parts that are not hidden are in the scene. */
  withAll<T>(run: () => T): T {
    const shown = [...this.#opaque, ...this.#transparent].filter((part) => !this.#isHidden(part));
    return this.#with(shown, run);
  }

  dispose(): void {
    this.#disposed = true;
    cancelAnimationFrame(this.#frame);
    if (this.#pending !== undefined) this.#gl.deleteSync(this.#pending.sync);
    for (const { object } of [...this.#opaque, ...this.#transparent]) object.geometry.dispose();
    this.#target?.dispose();
    this.#edge.material.dispose();
    this.#edge.geometry.dispose();
  }

  get #gl(): WebGL2RenderingContext {
    return this.#parts.renderer.getContext() as WebGL2RenderingContext;
  }

  /** Slices are collected in a target, which needs more bits than some browsers can draw into. */
  #canSlice(): boolean {
    return this.#parts.renderer.extensions.has('EXT_color_buffer_float');
  }

  #schedule(): void {
    if (this.#frame !== 0 || this.#disposed) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      if (!this.#isIdle()) return this.#schedule();
      if (this.#isNew) this.#begin();
      if (this.#paint()) this.#schedule();
    });
  }

  /** Whether the last slice has been drawn. From how long it took follows the size of the next one. */
  #isIdle(): boolean {
    if (this.#pending === undefined) return true;
    const gl = this.#gl;
    const { sync, since } = this.#pending;
    const ms = performance.now() - since;
    if (!gl.isContextLost() && gl.getSyncParameter(sync, gl.SYNC_STATUS) !== gl.SIGNALED && ms < longestWaitMs)
      return false;
    gl.deleteSync(sync);
    this.#pending = undefined;
    if (ms > slowMs) this.#budget = Math.max(leastBudget, this.#budget * Math.max(slowMs / ms, 0.25));
    else if (ms < fastMs) this.#budget = Math.min(this.#budget * 2, 1e9);
    return true;
  }

  #begin(): void {
    const { renderer, camera, scene, background, place } = this.#parts;
    place();
    scene.updateMatrixWorld();
    this.#isNew = false;
    this.#isBlank = true;
    const seen = new Frustum().setFromProjectionMatrix(
      new Matrix4().multiplyMatrices(camera.projectionMatrix, camera.matrixWorldInverse),
    );
    this.#queue = this.#opaque.filter((part) => !this.#isHidden(part) && seen.intersectsObject(part.object));
    this.#transparentLeft = true;
    renderer.setRenderTarget(this.#ownTarget());
    // Set anew each time: what is written depends on the colour space of the target.
    renderer.setClearColor(background, 1);
    renderer.clear();
  }

  /** Draws a slice and shows what there is. @returns whether there is more to do */
  #paint(): boolean {
    const { renderer, scene, camera, canvas, onFrame } = this.#parts;
    const target = this.#ownTarget();
    const slice = this.#nextSlice(target !== null) ?? (this.#isBlank ? [] : undefined);
    if (slice !== undefined) {
      this.#isBlank = false;
      renderer.setRenderTarget(target);
      this.#with(slice, () => renderer.render(scene, camera));
      this.#show(target);
      onFrame();
      this.#wait();
    }
    const more = this.#queue.length > 0 || (this.#transparentLeft && this.#isComplete);
    const isDrawn = !more && this.#isComplete && this.#pending === undefined;
    canvas.dataset.drawn = String(isDrawn);
    return more || this.#pending !== undefined;
  }

  /** The parts to draw next; undefined if there are none. */
  #nextSlice(isSliced: boolean): Part[] | undefined {
    const shown = () => this.#transparent.filter((part) => !this.#isHidden(part));
    if (!isSliced) {
      const all = this.#transparentLeft ? [...this.#queue, ...shown()] : undefined;
      this.#queue = [];
      this.#transparentLeft = false;
      return all;
    }
    let count = 0;
    for (let triangles = 0; count < this.#queue.length && triangles < this.#budget; count++)
      triangles += trianglesOf(this.#queue[count] as Part);
    const slice = this.#queue.splice(0, count);
    if (this.#queue.length > 0 || !this.#isComplete || !this.#transparentLeft)
      return slice.length > 0 ? slice : undefined;
    this.#transparentLeft = false;
    return [...slice, ...shown()];
  }

  #with<T>(parts: readonly Part[], run: () => T): T {
    for (const { object } of parts) object.visible = true;
    try {
      return run();
    } finally {
      for (const { object } of parts) object.visible = false;
    }
  }

  /** Shows what the target has, with edges, and what lies over it. */
  #show(target: WebGLRenderTarget | null): void {
    const { renderer, camera, overlay } = this.#parts;
    if (target !== null) {
      const planes = renderer.clippingPlanes;
      renderer.clippingPlanes = [];
      renderer.setRenderTarget(null);
      renderer.clear();
      const { uniforms } = this.#edge.material;
      (uniforms.image as { value: unknown }).value = target.textures[0];
      (uniforms.edges as { value: unknown }).value = target.textures[1];
      (uniforms.strength as { value: number }).value = this.#edges ? 1 : 0;
      renderer.render(this.#edgeScene, camera);
      renderer.clippingPlanes = planes;
    }
    if (overlay.children.length > 0) renderer.render(overlay, camera);
  }

  #wait(): void {
    const gl = this.#gl;
    const sync = gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0);
    gl.flush();
    if (sync !== null) this.#pending = { sync, since: performance.now() };
  }

  #ownTarget(): WebGLRenderTarget | null {
    if (!this.#canSlice()) return null;
    const { width, height } = this.#parts.canvas;
    this.#target ??= new WebGLRenderTarget(width, height, { count: 2, type: HalfFloatType, samples: 4 });
    return this.#target;
  }
}

function trianglesOf({ object }: Part): number {
  const indices = object.geometry.index?.count ?? object.geometry.getAttribute('position').count;
  const uses = object instanceof InstancedMesh ? object.count : 1;
  return (uses * indices) / (object instanceof LineSegments ? 2 : 3);
}
