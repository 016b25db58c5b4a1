import type { Bounds } from '../graphics.ts';
import type { Look, Triple } from './Viewer.ts';

/** Height of the eyes above the lowest point of the model when walking begins, meters. */
const eyeHeight = 1.7;
/** Time to walk from one corner of the model to the other, seconds, and the slowest and fastest speed, meters per second. */
const crossingSeconds = 25;
const speeds = { least: 0.5, most: 40 };
/** How many times as fast Shift is. */
const hurry = 3;
/** Radians per second of the keys, and per pixel of the pointer. */
const turnPerSecond = 1.2;
const turnPerPixel = 0.004;
/** How far up and down one can look, radians. */
const steepest = 1.45;
/** Longest time that one frame moves, seconds. Software rendering draws large models with one frame a second. */
const longestFrame = 0.25;

type Move = 'forward' | 'right' | 'turn' | 'rise';

const moves: Record<string, readonly [move: Move, sign: 1 | -1]> = {
  KeyW: ['forward', 1],
  ArrowUp: ['forward', 1],
  KeyS: ['forward', -1],
  ArrowDown: ['forward', -1],
  KeyD: ['right', 1],
  KeyA: ['right', -1],
  ArrowRight: ['turn', -1],
  ArrowLeft: ['turn', 1],
  PageUp: ['rise', 1],
  PageDown: ['rise', -1],
};

interface Walked {
  look: () => Look;
  setLook: (look: Look) => void;
  onLook: (look: Look) => void;
}

/** Moves a view through the model at a constant height, as long as keys are held down. Nothing stops it: walls are passed. */
export class Walk {
  readonly #walked: Walked;
  readonly #speed: number;
  /** Distance from the eye to the point that the view turns around when walking has ended. */
  readonly #ahead: number;
  readonly #down = new Set<string>();
  readonly #ending = new AbortController();
  #faster = false;
  #frame = 0;
  #last = 0;

  constructor(canvas: HTMLCanvasElement, bounds: Bounds, walked: Walked) {
    this.#walked = walked;
    const size = Math.hypot(...bounds.high.map((high, n) => high - (bounds.low[n] ?? high)));
    this.#speed = Math.min(Math.max(size / crossingSeconds, speeds.least), speeds.most);
    this.#ahead = Math.max(size / 10, 0.1);
    const { signal } = this.#ending;
    canvas.addEventListener('pointermove', (event) => this.#onDrag(event), { signal });
    canvas.addEventListener('pointerdown', (event) => canvas.setPointerCapture(event.pointerId), { signal });
    canvas.addEventListener('wheel', (event) => this.#onWheel(event), { signal, passive: false });
    // A key that is released elsewhere is never reported.
    canvas.addEventListener('blur', () => this.#down.clear(), { signal });
    this.#begin(bounds);
  }

  /** From outside, walking begins at the edge of the model with a level view to its middle; inside, where the view is. */
  #begin({ low, high }: Bounds): void {
    const { eye, target } = this.#walked.look();
    if (eye.every((value, n) => value > (low[n] ?? value) && value < (high[n] ?? value)))
      return this.#show(eye, directionOf(eye, target));
    const size = Math.hypot(...high.map((value, n) => value - (low[n] ?? value)));
    const middle = low.map((value, n) => (value + (high[n] ?? value)) / 2) as Triple;
    // A little outside, so that a wall at the edge is seen and not stood in.
    const margin = size / 50;
    const place = ([0, 1] as const).map((n) => Math.min(Math.max(eye[n], low[n] - margin), high[n] + margin));
    const z = low[2] + Math.min(eyeHeight, Math.max((high[2] - low[2]) * 0.6, size / 100));
    const start: Triple = [place[0] ?? eye[0], place[1] ?? eye[1], z];
    this.#show(start, { heading: Math.atan2(middle[1] - start[1], middle[0] - start[0]), pitch: 0 });
  }

  /** @returns whether the key is one that walks */
  key(code: string, isDown: boolean, shift: boolean): boolean {
    this.#faster = shift;
    if (moves[code] === undefined) return false;
    if (!isDown) this.#down.delete(code);
    else if (!this.#down.has(code)) {
      this.#down.add(code);
      // The first step needs no frame before it.
      if (this.#frame === 0) {
        this.#last = performance.now() - 16;
        this.#step();
      }
    }
    return true;
  }

  stop(): void {
    this.#ending.abort();
    this.#down.clear();
    cancelAnimationFrame(this.#frame);
  }

  #step(): void {
    const now = performance.now();
    const seconds = Math.min((now - this.#last) / 1000, longestFrame);
    this.#last = now;
    const sums: Record<Move, number> = { forward: 0, right: 0, turn: 0, rise: 0 };
    for (const code of this.#down) {
      const [move, sign] = moves[code] ?? [];
      if (move !== undefined) sums[move] += sign ?? 0;
    }
    this.#move(sums, seconds);
    this.#frame = this.#down.size === 0 ? 0 : requestAnimationFrame(() => this.#step());
  }

  #move({ forward, right, turn, rise }: Record<Move, number>, seconds: number): void {
    const { eye, target } = this.#walked.look();
    const { heading, pitch } = directionOf(eye, target);
    const turned = heading + turn * turnPerSecond * seconds;
    const way = this.#speed * (this.#faster ? hurry : 1) * seconds;
    const [cos, sin] = [Math.cos(turned), Math.sin(turned)];
    this.#show(
      [
        eye[0] + (cos * forward + sin * right) * way,
        eye[1] + (sin * forward - cos * right) * way,
        eye[2] + (rise * way) / 2,
      ],
      { heading: turned, pitch },
    );
  }

  #onDrag({ buttons, movementX, movementY }: PointerEvent): void {
    if (buttons === 0) return;
    const { eye, target } = this.#walked.look();
    const { heading, pitch } = directionOf(eye, target);
    this.#show(eye, { heading: heading + movementX * turnPerPixel, pitch: pitch + movementY * turnPerPixel });
  }

  #onWheel(event: WheelEvent): void {
    event.preventDefault();
    this.#move({ forward: -Math.sign(event.deltaY), right: 0, turn: 0, rise: 0 }, 0.3);
  }

  #show(eye: Triple, { heading, pitch }: Direction): void {
    const up = Math.min(Math.max(pitch, -steepest), steepest);
    const [ahead, flat] = [this.#ahead, Math.cos(up)];
    const target: Triple = [
      eye[0] + Math.cos(heading) * flat * ahead,
      eye[1] + Math.sin(heading) * flat * ahead,
      eye[2] + Math.sin(up) * ahead,
    ];
    this.#walked.setLook({ eye, target });
    this.#walked.onLook(this.#walked.look());
  }
}

/** Angles of a view, radians: counterclockwise from the x axis, and upwards. */
interface Direction {
  heading: number;
  pitch: number;
}

function directionOf(eye: Triple, target: Triple): Direction {
  const [x, y, z] = [target[0] - eye[0], target[1] - eye[1], target[2] - eye[2]];
  return { heading: Math.atan2(y, x), pitch: Math.atan2(z, Math.hypot(x, y)) };
}
