import { createHash, randomUUID, timingSafeEqual } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { mkdir, rm, stat } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { Ajv } from 'ajv';
import type { Logger } from 'pino';
import type { WorkRequest } from '../worker.ts';
import { FileFaultError } from '../workerProcess.ts';
import type { Workers, WorkSlot } from '../workers.ts';
import { FinalError, PublicError, reasonForUsers } from '../../../operations/reasons.ts';
import { within } from '../../../operations/within.ts';
import { version } from '../../../version.ts';
import {
  heartbeatMs,
  CountedReader,
  healthPath,
  IncompleteStreamError,
  maxHeadBytes,
  maxLineBytes,
  silenceTimeoutMs,
  WorkHead,
  workPath,
  type WorkEvent,
} from './protocol.ts';

/** An iTwin.js service that listens. */
export interface ITwinJsService {
  /** `http://host:port` */
  origin: string;
  /** Ends the work under way and stops listening. */
  close(): Promise<void>;
}

interface ServiceParts {
  /** In the folder of its slot each piece of work has a folder of its own, which goes with it. */
  workers: Workers;
  /** Whoever has it may have files worked on. */
  key: string;
  /** Pieces of work that are taken at a time; more are told to come again. */
  slots: number;
  host: string;
  port: number;
  log: Logger;
}

/** How long the process may take to end, milliseconds. */
const stopMs = 2000;
/** A caller that is told to come again does so after this, seconds. */
const retryAfter = '5';

/**
 * Runs iTwin.js for other servers: files come in, files go out. It has no database, no store and no key of an
 * installation, so what a hostile file makes of iTwin.js here reaches none of them.
 */
export async function startITwinJsService(parts: ServiceParts): Promise<ITwinJsService> {
  const service = new Service(parts);
  const handle = (request: IncomingMessage, response: ServerResponse): void => {
    service.handle(request, response).catch((error: unknown) => {
      parts.log.error({ err: error }, 'a request failed');
      response.destroy();
    });
  };
  // Work may take hours: what bounds a request is that bytes pass, below.
  const server = createServer({ headersTimeout: 10_000, requestTimeout: 0 }, handle);
  server.on('checkContinue', handle);
  server.timeout = silenceTimeoutMs;
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(parts.port, parts.host, resolve));
  const { port, address, family } = server.address() as AddressInfo;
  return {
    origin: `http://${family === 'IPv6' ? `[${address}]` : address}:${port}`,
    close: async () => {
      const closed = new Promise((resolve) => server.close(resolve));
      server.closeAllConnections();
      await parts.workers.stop(stopMs);
      await within(closed, stopMs);
    },
  };
}

const validHead = new Ajv({ strict: false }).compile<WorkHead>(WorkHead);

/** The caller's fault, told before anything is begun. */
class RequestError extends Error {
  readonly status: number;
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

class Service {
  readonly #parts: ServiceParts;
  /** Hash of the only `Authorization` that is let in. */
  readonly #allowed: Buffer;
  #running = 0;

  constructor(parts: ServiceParts) {
    this.#parts = parts;
    this.#allowed = sha256(`Bearer ${parts.key}`);
  }

  async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      if (request.url === healthPath && request.method === 'GET') return await this.#health(response);
      if (request.url !== workPath || request.method !== 'POST')
        throw new RequestError(404, 'There is nothing at this address.');
      if (!this.#isAllowed(request)) throw new RequestError(401, 'The key is missing or wrong.');
      if (this.#running >= this.#parts.slots) throw new RequestError(503, 'Other work is under way.');
      this.#running++;
      try {
        await this.#parts.workers.use(new AbortController().signal, (slot) => this.#work(slot, request, response));
      } finally {
        this.#running--;
      }
    } catch (error) {
      if (!(error instanceof RequestError) || response.headersSent) throw error;
      // The body is not read: the connection ends with the answer.
      response.writeHead(error.status, {
        'content-type': 'application/json',
        connection: 'close',
        ...(error.status === 503 && { 'retry-after': retryAfter }),
      });
      response.end(JSON.stringify({ message: error.message }));
    }
  }

  async #health(response: ServerResponse): Promise<void> {
    const { workers } = this.#parts;
    const health = { status: 'ok', version, iTwinJs: await workers.version(), isolation: await workers.level() };
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(health));
  }

  /** By their hashes, which have one length, so that the time tells nothing. */
  #isAllowed({ headers: { authorization = '' } }: IncomingMessage): boolean {
    return timingSafeEqual(sha256(authorization), this.#allowed);
  }

  async #work({ worker, folder: home }: WorkSlot, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { log } = this.#parts;
    if (request.headers.expect !== undefined) response.writeContinue();
    const folder = path.join(home, randomUUID());
    const disconnected = new AbortController();
    response.once('close', () => disconnected.abort(new Error('the caller is disconnected')));
    try {
      await mkdir(folder, { mode: 0o700 });
      const work = await receive(request, folder, disconnected.signal);
      response.writeHead(200, { 'content-type': 'application/octet-stream', 'cache-control': 'no-store' });
      const send = (event: WorkEvent): void => void response.write(`${JSON.stringify(event)}\n`);
      const heartbeat = setInterval(() => send({}), heartbeatMs);
      try {
        const { iModelIdOffset, iTwinIdOffset, missingGuids, highestBriefcaseId } = await worker.work(
          work,
          { signal: disconnected.signal },
          (applied) => send({ applied }),
        );
        const { size } = await stat(work.file);
        send({ result: { iModelIdOffset, iTwinIdOffset, missingGuids, highestBriefcaseId }, size });
      } catch (error) {
        disconnected.signal.throwIfAborted();
        send(eventOf(error as Error, log));
        response.end();
        return;
      } finally {
        clearInterval(heartbeat);
      }
      await pipeline(createReadStream(work.file), response, { signal: disconnected.signal });
    } catch (error) {
      if (!disconnected.signal.aborted) throw error;
      log.info('a piece of work ended because its caller is disconnected');
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }
}

/** Reads a piece of work into a folder, under names of our own. @throws RequestError */
async function receive(request: IncomingMessage, folder: string, signal: AbortSignal): Promise<WorkRequest> {
  const reader = new CountedReader(request);
  try {
    const head = await receiveHead(reader);
    const store = async (name: string, size: number): Promise<string> => {
      const file = path.join(folder, name);
      await pipeline(reader.pieces(size), createWriteStream(file, { mode: 0o600, flags: 'wx' }), { signal });
      return file;
    };
    const file = await store('model.bim', head.size);
    const changesets: WorkRequest['changesets'] = [];
    for (const { size, ...changeset } of head.changesets)
      changesets.push({ ...changeset, path: await store(`${changesets.length}.cs`, size) });
    return { file, changesets, purpose: head.purpose, countMissingGuids: head.countMissingGuids };
  } catch (error) {
    throw error instanceof IncompleteStreamError ? new RequestError(400, 'The request ended early.') : error;
  }
}

/** @throws RequestError, IncompleteStreamError */
async function receiveHead(reader: CountedReader): Promise<WorkHead> {
  const length = (await reader.take(4)).readUInt32BE(0);
  if (length > maxHeadBytes) throw new RequestError(400, 'The head of the request is too long.');
  const text = (await reader.take(length)).toString('utf8');
  let head: unknown;
  try {
    head = JSON.parse(text);
  } catch {
    throw new RequestError(400, 'The head of the request is not valid JSON.');
  }
  if (!validHead(head)) throw new RequestError(400, 'The head of the request is not valid.');
  return head;
}

/** What the caller is told of a piece of work that failed. */
function eventOf(error: Error, log: Logger): WorkEvent {
  if (error instanceof FileFaultError) {
    const detail = error.cause instanceof Error ? error.cause.message : '';
    return {
      fault: error.message,
      kind: error.kind,
      detail: detail.slice(0, maxLineBytes / 8),
      highestBriefcaseId: error.highestBriefcaseId,
    };
  }
  const reference = randomUUID();
  log.error({ err: error, reference }, 'a piece of work failed');
  const failed = error instanceof PublicError ? error.message : reasonForUsers(error, reference);
  return { failed, final: error instanceof FinalError };
}

function sha256(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
