import http from 'node:http';
import https from 'node:https';
import { ApiError } from '../errors.ts';
import { readAtMost } from '../http/readAtMost.ts';
import { AnswerMemory, AnswersFullError, answerTooLarge, type Reserve } from './answerMemory.ts';
import { iTwinJsOf, keyHeader, pingPath, release, releaseHeader } from './protocol.ts';

/** A request for a back end. All of them only read, so each may be sent again. */
export interface BackendRequest {
  path: string;
  body: string;
  headers: Record<string, string>;
  /** Reserves the memory of the answer, before it is read. */
  reserve: Reserve;
}

export interface BackendAnswer {
  status: number;
  headers: http.IncomingHttpHeaders;
  body: Buffer;
  /** Version of iTwin.js of the back end that answered; undefined if it names none. */
  iTwinJs: string | undefined;
}

/** Answers the calls of viewers: a process of this server, or a back end that runs elsewhere. */
export interface Backend {
  /**
   * @throws BackendLostError if the back end ended or cannot be reached, AnswersFullError, ApiError if the answer is too large, or
   * what aborted the request
   */
  call(request: BackendRequest, signal: AbortSignal): Promise<BackendAnswer>;
  stop(): Promise<void>;
  /** Version of iTwin.js that makes tiles; undefined until a back end that runs elsewhere has answered for the first time. */
  readonly iTwinJs: string | undefined;
  /** What runs now; undefined for a back end that runs elsewhere. */
  readonly usage?: BackendUsage;
}

export interface BackendUsage {
  running: boolean;
  /** Open checkpoints. */
  checkpoints: number;
  memoryBytes: number;
  /** How often the process was started. */
  starts: number;
}

/** The back end ended before it answered, or cannot be reached. The request may be sent again. */
export class BackendLostError extends Error {
  constructor(cause: unknown) {
    super('the view back end ended before it answered', { cause });
    this.name = 'BackendLostError';
  }
}

/** Maximum size of an answer, bytes. The largest ones are tiles, of some MiB. */
const maxAnswerBytes = 256 * 2 ** 20;
/** How long a responsive back end takes to answer a ping, milliseconds. */
const pingMs = 5000;
/** Maximum size of the answer to a ping, which has no content, bytes. */
const maxPongBytes = 64 * 1024;

/** Where a back end listens. */
export interface BackendAddress {
  url: URL;
  key: string;
}

/** Sends one request. @throws BackendLostError, AnswersFullError, ApiError if the answer is too large, or what aborted the request */
export async function sendTo(
  address: BackendAddress,
  agent: http.Agent | undefined,
  request: BackendRequest,
  signal: AbortSignal,
): Promise<BackendAnswer> {
  try {
    const response = await new Promise<http.IncomingMessage>((resolve, reject) => {
      const options = {
        agent,
        method: 'POST',
        headers: {
          ...request.headers,
          [keyHeader]: address.key,
          [releaseHeader]: release(),
          'content-length': Buffer.byteLength(request.body),
        },
        signal,
      };
      const { url } = address;
      const sent = (url.protocol === 'https:' ? https : http).request(new URL(request.path, url), options);
      sent.once('response', resolve);
      sent.once('error', reject);
      sent.end(request.body);
    });
    const body = await read(response, request.reserve, signal);
    const { statusCode: status = 500, headers } = response;
    return { status, headers, body, iTwinJs: iTwinJsOf(headers[releaseHeader]) };
  } catch (error) {
    if (signal.aborted) throw signal.reason as Error;
    throw error instanceof AnswersFullError || error instanceof ApiError ? error : new BackendLostError(error);
  }
}

/** Reads an answer for which memory has been reserved: at once if it says how long it is, as iTwin.js does. */
async function read(response: http.IncomingMessage, reserve: Reserve, signal: AbortSignal): Promise<Buffer> {
  try {
    const announced = Number(response.headers['content-length']);
    if (announced > maxAnswerBytes) throw answerTooLarge(maxAnswerBytes);
    const isAnnounced = Number.isSafeInteger(announced) && announced >= 0;
    if (isAnnounced) await reserve(announced, signal);
    const parts = isAnnounced ? response : reserved(response, reserve, signal);
    return await readAtMost(parts, maxAnswerBytes, () => answerTooLarge(maxAnswerBytes));
  } finally {
    response.destroy();
  }
}

async function* reserved(parts: AsyncIterable<Buffer>, reserve: Reserve, signal: AbortSignal): AsyncGenerator<Buffer> {
  for await (const part of parts) {
    await reserve(part.length, signal);
    yield part;
  }
}

/** Asks a back end whether it answers: with 204 if nothing is wrong. @throws BackendLostError, or a timeout */
export function ping(address: BackendAddress): Promise<BackendAnswer> {
  const memory = new AnswerMemory(maxPongBytes);
  const { reserve } = memory.hold('');
  return sendTo(address, undefined, { path: pingPath, body: '', headers: {}, reserve }, AbortSignal.timeout(pingMs));
}

/** Whether a back end answers, although a request to it did not. */
export async function isResponsive(address: BackendAddress): Promise<boolean> {
  try {
    return (await ping(address)).status === 204;
  } catch {
    return false;
  }
}
