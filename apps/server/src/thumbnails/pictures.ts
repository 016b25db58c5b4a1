import { spawn } from 'node:child_process';
import { buffer } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import type { Caller } from '../domain.ts';
import { ApiError } from '../errors.ts';
import type { PictureFault, ScaledHead, ThumbnailSize } from './pictureSizes.ts';
import { QueueFullError, FairQueue } from './fairQueue.ts';

/** The bytes are not a PNG or JPEG, or are damaged. */
export class NotAPictureError extends Error {
  constructor(cause: unknown) {
    super('the bytes are not a picture of a supported format', { cause });
    this.name = 'NotAPictureError';
  }
}

/** The picture has more pixels than are decoded for a thumbnail. */
export class TooManyPixelsError extends Error {
  constructor() {
    super('the picture has too many pixels');
    this.name = 'TooManyPixelsError';
  }
}

/** One side of the picture is too long in proportion to the other. */
export class ProportionsError extends Error {
  constructor() {
    super('one side of the picture is too long for the other');
    this.name = 'ProportionsError';
  }
}

/** Timeout for one picture, milliseconds. The largest ones take seconds. */
const timeoutMs = 60_000;
/** Maximum number of pictures being scaled and waiting. Each holds its bytes in memory, 5 MiB at most. */
const limits = { running: 1, waiting: 32, waitingPerUser: 4 };

/** Who requests the scaling, and its limits. */
export interface PictureRequest {
  caller: Caller;
  /** Aborted when the client disconnects. */
  signal: AbortSignal;
  /** Maximum ratio of the longer side to the shorter one. */
  maxProportion?: number;
}

/** Scales pictures in separate processes, one at a time, round-robin over users. */
export class Pictures {
  readonly #queue = new FairQueue(limits);
  #default: Promise<Record<ThumbnailSize, Buffer>> | undefined;

  /**
   * Scales a picture to both sizes, as PNG.
   * @throws NotAPictureError, TooManyPixelsError, ProportionsError; ApiError Unavailable
   */
  async scale(
    picture: Buffer,
    { caller, signal, maxProportion = Infinity }: PictureRequest,
  ): Promise<Record<ThumbnailSize, Buffer>> {
    try {
      return await this.#queue.run(caller.user.id, signal, () =>
        inProcess(['scale', String(maxProportion)], picture, signal),
      );
    } catch (error) {
      if (error instanceof QueueFullError)
        throw new ApiError('Unavailable', {
          message: 'Too many pictures wait to be scaled. Try again.',
          headers: { 'retry-after': '5' },
          cause: error,
        });
      throw error;
    }
  }

  /** The default picture in both sizes. It is drawn once. @throws ApiError Unavailable */
  async byDefault(): Promise<Record<ThumbnailSize, Buffer>> {
    if (this.#default === undefined) {
      this.#default = inProcess(['default'], Buffer.alloc(0));
      this.#default.catch(() => (this.#default = undefined));
    }
    return this.#default;
  }
}

/** `.ts` in the sources, `.js` in the build: the same extension as this module. */
const script = fileURLToPath(
  new URL(`./pictureProcess${import.meta.url.slice(import.meta.url.lastIndexOf('.'))}`, import.meta.url),
);

async function inProcess(
  args: readonly string[],
  picture: Buffer,
  signal?: AbortSignal,
): Promise<Record<ThumbnailSize, Buffer>> {
  const timeout = AbortSignal.timeout(timeoutMs);
  // The server's environment contains secrets and is not passed on.
  const child = spawn(process.execPath, [script, ...args], {
    env: { NODE_ENV: 'production' },
    stdio: ['pipe', 'pipe', 'ignore'],
    signal: signal === undefined ? timeout : AbortSignal.any([timeout, signal]),
    killSignal: 'SIGKILL',
    windowsHide: true,
  });
  const ended = new Promise<void>((resolve, reject) => child.once('error', reject).once('close', () => resolve()));
  // A process that ends early does not read its whole input. Only its answer matters.
  child.stdin.on('error', () => undefined).end(picture);
  try {
    const [bytes] = await Promise.all([buffer(child.stdout), ended]);
    return readScaled(bytes);
  } catch (error) {
    signal?.throwIfAborted();
    if (timeout.aborted) throw new NotAPictureError(error);
    throw error;
  }
}

function readScaled(bytes: Buffer): Record<ThumbnailSize, Buffer> {
  const end = bytes.indexOf('\n');
  // The operating system killed the process, most likely because memory ran out.
  if (end === -1) throw new NotAPictureError(new Error('the process ended without an answer'));
  const { fault, cause, bytes: lengths } = JSON.parse(bytes.toString('utf8', 0, end)) as ScaledHead;
  if (fault !== undefined) throw errorOf(fault, cause);
  const [small = 0, large = 0] = lengths;
  const start = end + 1;
  if (bytes.length !== start + small + large)
    throw new Error('the process that scales pictures did not answer to the end');
  return { small: bytes.subarray(start, start + small), large: bytes.subarray(start + small) };
}

function errorOf(fault: PictureFault, cause: string | undefined): Error {
  switch (fault) {
    case 'notAPicture':
      return new NotAPictureError(cause);
    case 'tooManyPixels':
      return new TooManyPixelsError();
    case 'proportions':
      return new ProportionsError();
    case 'notInstalled':
      return new ApiError('Unavailable', {
        message: 'This installation cannot handle pictures: the binary of sharp is not installed.',
        cause,
      });
  }
}
