import type { ServerResponse } from 'node:http';
import type { Readable } from 'node:stream';
import { StorageError } from '../../storage/storageError.ts';

/** Limits on concurrent downloads and on their minimum speed. */
export interface DownloadLimits {
  /** Maximum on this server. */
  simultaneous: number;
  /** Maximum for one link or one container token. */
  perLink: number;
  /** Longest time for which a client may stall. */
  stallSeconds: number;
}

/** What a client has to take while bytes are ready for it, on the average of `stallSeconds`: a modem takes more. */
const leastBytesPerSecond = 4096;
/** Slower than this, a download gives way when all places are taken, once it is older than a sixth of `stallSeconds`. */
const yieldingBytesPerSecond = 64 * 1024;
const yieldingAge = 1 / 6;
const retryAfterSeconds = 5;

/**
 * The downloads under way on this server. Each holds a connection to the store for as long as its client takes, so a client that
 * takes nothing loses it, and all of them together leave connections for uploads, jobs and other downloads.
 */
export class Downloads {
  readonly #limits: DownloadLimits;
  readonly #stallMs: number;
  readonly #running = new Set<Download>();
  readonly #perLink = new Map<string, number>();
  #timer: NodeJS.Timeout | undefined;

  constructor(limits: DownloadLimits) {
    this.#limits = limits;
    this.#stallMs = limits.stallSeconds * 1000;
  }

  /**
   * Takes a place for a response, until that is closed.
   * @param link what a client holds: the signature of a link or of a token
   * @throws StorageError 503 when the link is used too often at a time, or every place is taken by one that is fast enough
   */
  begin(link: string, response: ServerResponse): Download {
    const ofLink = this.#perLink.get(link) ?? 0;
    if (ofLink >= this.#limits.perLink)
      throw busy(`This link is used ${ofLink} times at once, and may not be used more often.`);
    if (this.#running.size >= this.#limits.simultaneous && !this.#vacate())
      throw busy('The server has as many downloads as it may have. Try again.');
    const download = new Download(link, response);
    this.#running.add(download);
    this.#perLink.set(link, ofLink + 1);
    response.once('close', () => this.#end(download));
    this.#timer ??= setInterval(() => this.#look(), this.#stallMs / 4).unref();
    return download;
  }

  /** Ends the slowest download if it is below the minimum speed. */
  #vacate(): boolean {
    const now = performance.now();
    let slowest: Download | undefined;
    for (const download of this.#running) {
      if (now - download.beganAt < this.#stallMs * yieldingAge || !download.waitsForClient) continue;
      if (download.bytesPerSecond(now) < Math.min(yieldingBytesPerSecond, slowest?.bytesPerSecond(now) ?? Infinity))
        slowest = download;
    }
    if (slowest === undefined) return false;
    this.#cut(slowest);
    return true;
  }

  #look(): void {
    const now = performance.now();
    for (const download of this.#running) if (download.isStalled(now, this.#stallMs)) this.#cut(download);
  }

  #cut(download: Download): void {
    this.#end(download);
    download.response.destroy();
  }

  #end(download: Download): void {
    if (!this.#running.delete(download)) return;
    const left = (this.#perLink.get(download.link) ?? 1) - 1;
    if (left === 0) this.#perLink.delete(download.link);
    else this.#perLink.set(download.link, left);
    if (this.#running.size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }
}

/** One download in progress. */
export class Download {
  readonly link: string;
  readonly response: ServerResponse;
  readonly beganAt = performance.now();
  #body: Readable | undefined;
  #bytes = 0;
  #mark = { at: this.beganAt, bytes: 0 };

  constructor(link: string, response: ServerResponse) {
    this.link = link;
    this.response = response;
  }

  /** Sets the stream from which the response is sent. */
  sends(body: Readable): void {
    this.#body = body;
  }

  /** Counts bytes that were passed on. */
  passed(bytes: number): void {
    this.#bytes += bytes;
  }

  /** Whether the client has not read bytes that are ready. A download that waits for the store does not count as stalled. */
  get waitsForClient(): boolean {
    return this.response.writableLength > 0 || (this.#body?.readableLength ?? 0) > 0;
  }

  /** Average since it began. */
  bytesPerSecond(now: number): number {
    return (this.#bytes * 1000) / (now - this.beganAt);
  }

  /** Whether the client took next to nothing for a time; called now and then. */
  isStalled(now: number, stallMs: number): boolean {
    const { at, bytes } = this.#mark;
    if (now - at < stallMs) return false;
    this.#mark = { at: now, bytes: this.#bytes };
    return this.waitsForClient && this.#bytes - bytes < (leastBytesPerSecond * (now - at)) / 1000;
  }
}

function busy(message: string): StorageError {
  return new StorageError(503, 'ServerBusy', message, { 'retry-after': String(retryAfterSeconds) });
}
