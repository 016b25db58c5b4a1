import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { stat, truncate } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import { setTimeout as pause } from 'node:timers/promises';
import { intoFile } from '../storage/intoFile.ts';
import { exitCodes, ExitError } from './exit.ts';

/** How often one file is begun or gone on with. */
const downloadAttempts = 5;
/** Wait before the second attempt; each further one is twice as long. */
const firstPauseMs = 100;

/** A file of another server, as that announced it. */
export interface RemoteFile {
  url: string;
  /** Bytes. */
  size: number;
  /** Names it in messages, such as `the baseline`. */
  what: string;
}

/** What of a file is on disk, and of which version. */
interface Partial {
  bytes: number;
  etag: string | null;
  /** MD5 of the whole file (base64), where the other server tells it. */
  md5: string | null;
}

/** This attempt brought nothing usable or not everything; the next one may. */
class BrokenOff extends Error {}

/**
 * Downloads a file. What breaks off goes on where it ended, if the other server sends exactly the missing part of the same file, and
 * begins anew otherwise. Never more than the announced bytes are written.
 * @param silenceMs longest time without a byte
 * @throws ExitError failed (another size or hash than announced), refused (4xx), unreachable
 */
export async function downloadFile(file: RemoteFile, target: string, silenceMs: number): Promise<void> {
  let have: Partial = { bytes: 0, etag: null, md5: null };
  for (let attempt = 1; ; attempt++) {
    const state: Partial = { ...have };
    try {
      await attemptDownload(file, target, state, silenceMs);
      if (state.md5 !== null && (await md5Of(target)) !== state.md5) throw new ExitError(exitCodes.failed, `${file.what} is damaged: its bytes do not have the announced MD5`);
      return;
    } catch (error) {
      if (error instanceof ExitError) throw error;
      if (attempt === downloadAttempts) throw new ExitError(exitCodes.unreachable, `the download of ${file.what} failed ${attempt} times; last: ${reasonOf(error)}`, error);
      // Without an ETag nothing shows that the rest would be of the same file. What had come may not all be on disk.
      const onDisk = (await stat(target).catch(() => undefined))?.size ?? 0;
      have = state.etag === null ? { bytes: 0, etag: null, md5: null } : { ...state, bytes: Math.min(state.bytes, onDisk) };
      await pause(firstPauseMs * 2 ** (attempt - 1));
    }
  }
}

/** @param state what is on disk; kept up to date while bytes arrive */
async function attemptDownload({ url, size, what }: RemoteFile, target: string, state: Partial, silenceMs: number): Promise<void> {
  const silence = new AbortController();
  const expired = (): void => silence.abort(new BrokenOff(`no byte came for ${silenceMs / 1000} s`));
  let timer = setTimeout(expired, silenceMs);
  try {
    const resumed = state.bytes > 0 && state.etag !== null;
    const response = await fetch(url, {
      headers: { 'accept-encoding': 'identity', ...(resumed && { range: `bytes=${state.bytes}-`, 'if-match': state.etag as string }) },
      signal: silence.signal,
    });
    const fresh = { bytes: 0, etag: response.headers.get('etag'), md5: response.headers.get('content-md5') ?? response.headers.get('x-ms-blob-content-md5') };
    if (resumed && (response.status === 412 || response.status === 416)) {
      Object.assign(state, fresh, { etag: null });
      throw new BrokenOff('the file changed meanwhile');
    }
    if (response.status >= 400 && response.status < 500) throw new ExitError(exitCodes.refused, `the download of ${what} was answered ${response.status}`);
    const { body } = response;
    if (!response.ok || body === null) throw new BrokenOff(`it was answered ${response.status}`);
    if (response.status !== 206) Object.assign(state, fresh);
    else if (!continues(response, state, size)) {
      Object.assign(state, fresh, { etag: null });
      throw new BrokenOff('the part that was sent is not the one that was asked for');
    }
    const length = response.headers.get('content-length');
    if (length !== null && response.headers.get('content-encoding') === null && state.bytes + Number(length) !== size)
      throw new ExitError(exitCodes.failed, `${what} has ${state.bytes + Number(length)} bytes, and was announced with ${size}`);
    if (state.bytes > 0) await truncate(target, state.bytes);
    await intoFile(target, state.bytes > 0 ? 'a' : 'w', (sink) =>
      pipeline(
        body,
        async function* bounded(chunks: AsyncIterable<Uint8Array>) {
          for await (const chunk of chunks) {
            clearTimeout(timer);
            timer = setTimeout(expired, silenceMs);
            if (state.bytes + chunk.length > size) throw new ExitError(exitCodes.failed, `${what} has more than the announced ${size} bytes`);
            yield chunk;
            state.bytes += chunk.length;
          }
        },
        sink,
        { signal: silence.signal },
      ),
    );
    if (state.bytes < size) throw new BrokenOff(`${state.bytes} of ${size} bytes came`);
  } catch (error) {
    throw silence.signal.aborted ? silence.signal.reason : error;
  } finally {
    clearTimeout(timer);
  }
}

/** Whether a partial answer is the whole rest of the file that is there in part. */
function continues(response: Response, { bytes, etag }: Partial, size: number): boolean {
  const [, start, end, total] = /^bytes (\d+)-(\d+)\/(\d+|\*)$/i.exec(response.headers.get('content-range') ?? '') ?? [];
  const tag = response.headers.get('etag');
  return etag !== null && (tag === null || tag === etag) && Number(start) === bytes && Number(end) === size - 1 && (total === '*' || Number(total) === size);
}

function reasonOf(error: unknown): string {
  const { message, cause } = error as Error;
  return cause instanceof Error ? `${message} (${cause.message})` : message;
}

async function md5Of(file: string): Promise<string> {
  const hash = createHash('md5');
  await pipeline(createReadStream(file), hash);
  return hash.digest('base64');
}
