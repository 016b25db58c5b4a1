import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { stat, statfs, truncate } from 'node:fs/promises';
import type { IncomingMessage } from 'node:http';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { setTimeout as pause } from 'node:timers/promises';
import { ForbiddenAddressError, send, type Outlet } from '../http/outbound.ts';
import { intoFile } from '../storage/intoFile.ts';
import { exitCodes, ExitError } from './exit.ts';

/** Attempts per file. */
const downloadAttempts = 5;
/** Pause before the second attempt, milliseconds. It doubles with each further attempt. */
const firstPauseMs = 100;
/** Most redirects per request: a server whose files are in a cloud store redirects once. */
const mostRedirects = 5;
/**
 * Time limit of a file over all attempts: twenty times the longest silence, plus the time for its bytes at this rate.
 */
const silences = 20;
const leastBytesPerSecond = 16 * 1024;
/** Longest delay of a Node.js timer, milliseconds. */
const longestTimerMs = 2 ** 31 - 1;

/** A file of another server, as announced by that server. */
export interface RemoteFile {
  url: string;
  /** Bytes. */
  size: number;
  /** Name of the file in messages, such as `the baseline`. */
  what: string;
}

/** Options for downloads from another server. */
export interface DownloadSettings {
  /** Longest time without receiving a byte, milliseconds. */
  silenceMs: number;
  /** Restricts the addresses of requests and redirects. */
  outlet: Outlet;
  /** Ends the download. */
  signal?: AbortSignal;
  /** Receives the number of bytes on disk, for a progress bar. */
  received?: (bytes: number) => void;
}

/** The part of a file that is on disk, and its version. */
interface Partial {
  bytes: number;
  etag: string | null;
  /** MD5 of the whole file (base64), if the other server sends it. */
  md5: string | null;
}

/** This attempt failed or was incomplete; another attempt may succeed. */
class BrokenOff extends Error {}

/**
 * Downloads a file. An interrupted download resumes if the other server sends exactly the missing part of the same
 * file, and otherwise restarts. It never writes more bytes than were announced.
 * @throws ExitError failed (size or hash differs from the announced one, or the disk is too small), refused (4xx, or a
 * forbidden address), unreachable (also when the time limit expires)
 */
export async function downloadFile(
  file: RemoteFile,
  target: string,
  { silenceMs, outlet, signal, received }: DownloadSettings,
): Promise<void> {
  await requireSpace(file, path.dirname(target));
  const longestMs = Math.ceil(
    Math.min(silenceMs * silences + (file.size / leastBytesPerSecond) * 1000, longestTimerMs),
  );
  const timeout = AbortSignal.timeout(longestMs);
  const deadline = signal === undefined ? timeout : AbortSignal.any([timeout, signal]);
  let have: Partial = { bytes: 0, etag: null, md5: null };
  for (let attempt = 1; ; attempt++) {
    const state: Partial = { ...have };
    try {
      await attemptDownload(file, target, state, { silenceMs, outlet, deadline, ...(received && { received }) });
      if (state.md5 !== null && (await md5Of(target)) !== state.md5)
        throw new ExitError(exitCodes.failed, `${file.what} is damaged: its MD5 differs from the announced one`);
      return;
    } catch (error) {
      if (error instanceof ExitError) throw error;
      if (error instanceof ForbiddenAddressError)
        throw new ExitError(exitCodes.refused, `${file.what} was not downloaded: ${error.message}`, error);
      if (deadline.aborted)
        throw new ExitError(
          exitCodes.unreachable,
          `the download of ${file.what} did not end within ${Math.round(longestMs / 1000)} s`,
          error,
        );
      if (attempt === downloadAttempts)
        throw new ExitError(
          exitCodes.unreachable,
          `the download of ${file.what} failed ${attempt} times; last: ${reasonOf(error)}`,
          error,
        );
      // Without an ETag nothing proves that the missing part belongs to the same file. Received bytes may not all be on
      // disk.
      const onDisk = (await stat(target).catch(() => undefined))?.size ?? 0;
      have =
        state.etag === null ? { bytes: 0, etag: null, md5: null } : { ...state, bytes: Math.min(state.bytes, onDisk) };
      await pause(firstPauseMs * 2 ** (attempt - 1));
    }
  }
}

/** @param state what is on disk; kept up to date while bytes arrive */
async function attemptDownload(
  { url, size, what }: RemoteFile,
  target: string,
  state: Partial,
  { silenceMs, outlet, deadline, received }: DownloadSettings & { deadline: AbortSignal },
): Promise<void> {
  const silence = new AbortController();
  const expired = (): void => silence.abort(new BrokenOff(`no byte came for ${silenceMs / 1000} s`));
  let timer = setTimeout(expired, silenceMs);
  const signal = AbortSignal.any([silence.signal, deadline]);
  let answer: IncomingMessage | undefined;
  try {
    const resumed = state.bytes > 0 && state.etag !== null;
    const headers = {
      'accept-encoding': 'identity',
      ...(resumed && { range: `bytes=${state.bytes}-`, 'if-match': state.etag as string }),
    };
    answer = await get(new URL(url), headers, outlet, signal);
    const { statusCode: status = 0 } = answer;
    const fresh = {
      bytes: 0,
      etag: headerOf(answer, 'etag'),
      md5: headerOf(answer, 'content-md5') ?? headerOf(answer, 'x-ms-blob-content-md5'),
    };
    if (resumed && (status === 412 || status === 416)) {
      Object.assign(state, fresh, { etag: null });
      throw new BrokenOff('the file changed meanwhile');
    }
    if (status >= 400 && status < 500)
      throw new ExitError(exitCodes.refused, `the server answered the download of ${what} with status ${status}`);
    if (status < 200 || status >= 300) throw new BrokenOff(`the server answered with status ${status}`);
    const body = answer;
    if (status !== 206) Object.assign(state, fresh);
    else if (!continues(answer, state, size)) {
      Object.assign(state, fresh, { etag: null });
      throw new BrokenOff('the part that was sent is not the one that was asked for');
    }
    const length = headerOf(answer, 'content-length');
    if (length !== null && headerOf(answer, 'content-encoding') === null && state.bytes + Number(length) !== size)
      throw new ExitError(
        exitCodes.failed,
        `${what} has ${state.bytes + Number(length)} bytes, and was announced with ${size}`,
      );
    if (state.bytes > 0) await truncate(target, state.bytes);
    await intoFile(target, state.bytes > 0 ? 'a' : 'w', (sink) =>
      pipeline(
        body,
        async function* bounded(chunks: AsyncIterable<Buffer>) {
          for await (const chunk of chunks) {
            clearTimeout(timer);
            timer = setTimeout(expired, silenceMs);
            if (state.bytes + chunk.length > size)
              throw new ExitError(exitCodes.failed, `${what} is larger than the announced ${size} bytes`);
            yield chunk;
            state.bytes += chunk.length;
            received?.(state.bytes);
          }
        },
        sink,
        { signal },
      ),
    );
    if (state.bytes < size) throw new BrokenOff(`${state.bytes} of ${size} bytes came`);
  } catch (error) {
    throw signal.aborted ? signal.reason : error;
  } finally {
    clearTimeout(timer);
    answer?.destroy();
  }
}

/** Follows redirects to allowed addresses. Never sends the API token. */
async function get(
  url: URL,
  headers: Record<string, string>,
  outlet: Outlet,
  signal: AbortSignal,
): Promise<IncomingMessage> {
  for (let redirects = 0; redirects <= mostRedirects; redirects++) {
    const answer = await send(url, outlet, { headers, signal });
    // An error on an answer that nobody reads must not crash the process.
    answer.on('error', () => undefined);
    const location = headerOf(answer, 'location');
    if (![301, 302, 303, 307, 308].includes(answer.statusCode ?? 0) || location === null) return answer;
    answer.destroy();
    if (!URL.canParse(location, url.href)) throw new BrokenOff('it was redirected to what is no address');
    url = new URL(location, url.href);
  }
  throw new BrokenOff(`it was redirected more than ${mostRedirects} times`);
}

function headerOf({ headers }: IncomingMessage, name: string): string | null {
  const value = headers[name];
  return typeof value === 'string' ? value : null;
}

/** @throws ExitError failed if the announced bytes do not fit on the disk */
async function requireSpace({ size, what }: RemoteFile, folder: string): Promise<void> {
  const { bavail, bsize } = await statfs(folder);
  if (size > bavail * bsize)
    throw new ExitError(
      exitCodes.failed,
      `${what} is announced with ${size} bytes, and ${folder} has room for ${bavail * bsize}`,
    );
}

/** Whether a partial answer is exactly the missing part of the file. */
function continues(answer: IncomingMessage, { bytes, etag }: Partial, size: number): boolean {
  const [, start, end, total] = /^bytes (\d+)-(\d+)\/(\d+|\*)$/i.exec(headerOf(answer, 'content-range') ?? '') ?? [];
  const tag = headerOf(answer, 'etag');
  return (
    etag !== null &&
    (tag === null || tag === etag) &&
    Number(start) === bytes &&
    Number(end) === size - 1 &&
    (total === '*' || Number(total) === size)
  );
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
