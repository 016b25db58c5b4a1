import { spawn } from 'node:child_process';
import { buffer } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import type { Caller } from '../domain.ts';
import { ApiError } from '../errors.ts';
import type { PictureFault, ScaledHead, ThumbnailSize } from './pictureSizes.ts';
import { QueueFullError, FairQueue } from './fairQueue.ts';

/** The bytes are no PNG and no JPEG, or a damaged one. */
export class NotAPictureError extends Error {
  constructor(cause: unknown) {
    super('the bytes are no picture of a supported format', { cause });
    this.name = 'NotAPictureError';
  }
}

/** A picture has more pixels than are decoded for a thumbnail. */
export class TooManyPixelsError extends Error {
  constructor() {
    super('the picture has too many pixels');
    this.name = 'TooManyPixelsError';
  }
}

/** A picture is much longer than it is high, or the other way round. */
export class ProportionsError extends Error {
  constructor() {
    super('one side of the picture is too long for the other');
    this.name = 'ProportionsError';
  }
}

/** Longest time for one picture, milliseconds: the largest one takes seconds. */
const timeoutMs = 60_000;
/** Pictures that are scaled, and that wait, at a time; each holds its bytes, 5 MiB at most. */
const limits = { running: 1, waiting: 32, waitingPerUser: 4 };

/** Whose picture is to be scaled, and for how long it is wanted. */
export interface PictureRequest {
  caller: Caller;
  /** Aborted when the client has gone. */
  signal: AbortSignal;
  /** Most that one side may be times the other. */
  maxProportion?: number;
}

/** Scales pictures in processes of their own, one at a time, users in turn. */
export class Pictures {
  readonly #queue = new FairQueue(limits);
  #default: Promise<Record<ThumbnailSize, Buffer>> | undefined;

  /**
   * The picture in both sizes, PNG.
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

  /** The picture of iModels that have none, in both sizes; made once. @throws ApiError Unavailable */
  async byDefault(): Promise<Record<ThumbnailSize, Buffer>> {
    if (this.#default === undefined) {
      this.#default = inProcess(['default'], Buffer.alloc(0));
      this.#default.catch(() => (this.#default = undefined));
    }
    return this.#default;
  }
}

/** From the sources these modules end in .ts, from the build in .js. */
const script = fileURLToPath(
  new URL(`./pictureProcess${import.meta.url.slice(import.meta.url.lastIndexOf('.'))}`, import.meta.url),
);

async function inProcess(
  args: readonly string[],
  picture: Buffer,
  signal?: AbortSignal,
): Promise<Record<ThumbnailSize, Buffer>> {
  const timeout = AbortSignal.timeout(timeoutMs);
  // Nothing of the server's environment, which holds its secrets.
  const child = spawn(process.execPath, [script, ...args], {
    env: { NODE_ENV: 'production' },
    stdio: ['pipe', 'pipe', 'ignore'],
    signal: signal === undefined ? timeout : AbortSignal.any([timeout, signal]),
    killSignal: 'SIGKILL',
    windowsHide: true,
  });
  const ended = new Promise<void>((resolve, reject) => child.once('error', reject).once('close', () => resolve()));
  // A process that ends early does not read all of it; what it answered counts.
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
  // Ended by the system, most likely for want of memory.
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
