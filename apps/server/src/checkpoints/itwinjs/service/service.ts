import { createHash, randomUUID, timingSafeEqual } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { mkdir, rm, stat } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import type { Logger } from 'pino';
import type { WorkRequest } from '../worker.ts';
import { FileFaultError } from '../workerProcess.ts';
import type { Workers, WorkSlot } from '../workers.ts';
import { FinalError, PublicError, reasonForUsers } from '../../../operations/reasons.ts';
import { within } from '../../../operations/within.ts';
import { checkOf } from '../../../schemaChecks.ts';
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

/** A running iTwin.js service. */
export interface ITwinJsService {
  /** `http://host:port` */
  origin: string;
  /** Stops the running work and closes the server. */
  close(): Promise<void>;
}

interface ServiceParts {
  /** Each request has a temporary folder within the folder of its slot. */
  workers: Workers;
  /** Secret that callers must send. */
  key: string;
  /** Maximum number of concurrent requests; further requests get 503. */
  slots: number;
  host: string;
  port: number;
  log: Logger;
}

/** Time for the iTwin.js process to end, milliseconds. */
const stopMs = 2000;
/** `Retry-After` of a 503 answer, seconds. */
const retryAfter = '5';

/**
 * Starts the service that runs iTwin.js for other servers. It has no database, no store and no keys of an installation,
 * so a malicious file that compromises iTwin.js can reach none of them.
 */
export async function startITwinJsService(parts: ServiceParts): Promise<ITwinJsService> {
  const service = new Service(parts);
  const handle = (request: IncomingMessage, response: ServerResponse): void => {
    service.handle(request, response).catch((error: unknown) => {
      parts.log.error({ err: error }, 'request failed');
      response.destroy();
    });
  };
  // Work may take hours, so requests have no total time limit, only the silence timeout below.
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

const validHead = checkOf<WorkHead>(WorkHead);

/** A request that is refused before any work starts. */
class RequestError extends Error {
  readonly status: number;
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

class Service {
  readonly #parts: ServiceParts;
  /** Hash of the only `Authorization` header that is accepted. */
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
      // The body is not read, so the connection must be closed after the answer.
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

  /** Compares hashes, which have equal lengths, in constant time. */
  #isAllowed({ headers: { authorization = '' } }: IncomingMessage): boolean {
    return timingSafeEqual(sha256(authorization), this.#allowed);
  }

  async #work({ worker, folder: home }: WorkSlot, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { log } = this.#parts;
    if (request.headers.expect !== undefined) response.writeContinue();
    const folder = path.join(home, randomUUID());
    const disconnected = new AbortController();
    response.once('close', () => disconnected.abort(new Error('the caller disconnected')));
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
      log.info('work aborted because the caller disconnected');
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }
}

/** Stores the files of a request in a folder, under names that the service chooses. @throws RequestError */
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
  if (!validHead()(head)) throw new RequestError(400, 'The head of the request is not valid.');
  return head;
}

/** The event that reports an error to the caller. */
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
  log.error({ err: error, reference }, 'work failed');
  const failed = error instanceof PublicError ? error.message : reasonForUsers(error, reference);
  return { failed, final: error instanceof FinalError };
}

function sha256(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
