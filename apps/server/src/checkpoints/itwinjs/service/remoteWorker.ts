import { createReadStream, createWriteStream } from 'node:fs';
import { rename, stat } from 'node:fs/promises';
import { request as requestHttp, type ClientRequest, type IncomingMessage } from 'node:http';
import { request as requestHttps } from 'node:https';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setTimeout as pause } from 'node:timers/promises';
import type { Static } from '../../../jsonSchema.ts';
import { type IsolationLevel, isolationLevels } from '../../../domain.ts';
import type { ModelWorker } from '../modelWorker.ts';
import type { WorkRequest, WorkResult } from '../worker.ts';
import { FileFaultError, maxWorkBytes } from '../workerProcess.ts';
import { readAtMost } from '../../../http/readAtMost.ts';
import { FinalError, PublicError } from '../../../operations/reasons.ts';
import { checkOf } from '../../../schemaChecks.ts';
import type { CallOptions } from '../../../storage/blobStore.ts';
import {
  CountedReader,
  healthPath,
  ServiceHealth,
  silenceTimeoutMs,
  WorkEvent,
  workPath,
  type WorkHead,
} from './protocol.ts';

export interface ServiceAddress {
  /** Base URL of the service, `http://…` or `https://…`. */
  url: string;
  key: string;
}

/** How long to retry while the service cannot be reached or has no free slot, milliseconds. Then the attempt fails. */
const timeoutMs = 15 * 60_000;
const retryMs = 2000;
const connectMs = 10_000;
/** Additional time for the transfer of the files, besides the limit for iTwin.js itself, milliseconds. */
const transferMs = 3_600_000;
const maxHealthBytes = 4096;

const validEvent = checkOf<WorkEvent>(WorkEvent);
const validHealth = checkOf<Static<typeof ServiceHealth>>(ServiceHealth);

/** The service cannot accept work now. It has not started any. */
class ServiceBusyError extends PublicError {
  constructor(cause: unknown) {
    super('The iTwin.js service, which makes checkpoints, does not answer or has no free slot.', { cause });
  }
}

/**
 * Makes model files with the iTwin.js service. All answers are validated, because a malicious file may have compromised
 * the service.
 */
export class RemoteWorker implements ModelWorker {
  readonly pid = undefined;
  readonly #address: ServiceAddress;
  readonly #wanted: IsolationLevel;
  readonly #workMs: number;
  readonly #ended = new AbortController();

  /**
   * @param wanted the minimum isolation level
   * @param workMs time limit for one request, milliseconds
   */
  constructor(address: ServiceAddress, wanted: IsolationLevel, workMs: number) {
    this.#address = address;
    this.#wanted = wanted;
    this.#workMs = workMs;
  }

  async work(
    request: WorkRequest,
    options: CallOptions & { signal: AbortSignal },
    onApplied: (index: number) => void,
  ): Promise<WorkResult> {
    for (const until = performance.now() + timeoutMs; ;) {
      try {
        await this.#requireLevel();
        return await this.#attempt(request, options, onApplied);
      } catch (error) {
        options.signal.throwIfAborted();
        if (!(error instanceof ServiceBusyError) || performance.now() > until) throw error;
      }
      options.onProgress?.();
      await pause(retryMs, undefined, { signal: AbortSignal.any([options.signal, this.#ended.signal]) });
    }
  }

  async level(): Promise<IsolationLevel> {
    return (await this.#health()).isolation;
  }

  async version(): Promise<string> {
    return (await this.#health()).iTwinJs;
  }

  async stop(): Promise<void> {
    this.kill();
  }

  kill(): void {
    this.#ended.abort(new Error('the server ends'));
  }

  async #requireLevel(): Promise<void> {
    const level = await this.level();
    if (isolationLevels.indexOf(level) < isolationLevels.indexOf(this.#wanted))
      throw new FinalError(
        'The iTwin.js service does not isolate the process that makes checkpoints as the configuration of this server requires.',
      );
  }

  async #health(): Promise<Static<typeof ServiceHealth>> {
    const signal = AbortSignal.any([AbortSignal.timeout(connectMs), this.#ended.signal]);
    let text: string;
    try {
      const response = await answerOf(this.#open('GET', healthPath, signal).end());
      text = (await readAtMost(response, maxHealthBytes, () => new Error('the answer is too long'))).toString('utf8');
    } catch (error) {
      throw new ServiceBusyError(error);
    }
    const health: unknown = JSON.parse(text);
    if (!validHealth()(health)) throw new PublicError('The iTwin.js service has a different version than this server.');
    return health;
  }

  #open(method: string, at: string, signal: AbortSignal): ClientRequest {
    const { url, key } = this.#address;
    const target = new URL(`${url.replace(/\/$/, '')}${at}`);
    const open = target.protocol === 'https:' ? requestHttps : requestHttp;
    return open(target, {
      method,
      signal,
      agent: false,
      headers:
        method === 'POST'
          ? { authorization: `Bearer ${key}`, expect: '100-continue', 'transfer-encoding': 'chunked' }
          : {},
    });
  }

  async #attempt(
    request: WorkRequest,
    { signal, onProgress }: CallOptions & { signal: AbortSignal },
    onApplied: (index: number) => void,
  ): Promise<WorkResult> {
    const limit = new AbortController();
    const begunAt = performance.now();
    let lastHeardAt = begunAt;
    const onActivity = (): void => {
      lastHeardAt = performance.now();
      onProgress?.();
    };
    const watch = setInterval(() => {
      if (performance.now() - lastHeardAt > silenceTimeoutMs)
        limit.abort(new PublicError(`The iTwin.js service was silent for ${silenceTimeoutMs / 1000} s.`));
      if (performance.now() - begunAt > this.#workMs + transferMs)
        limit.abort(new FinalError('Making the file took too long and was stopped.'));
    }, 1000);
    const ended = AbortSignal.any([signal, limit.signal, this.#ended.signal]);
    try {
      return await this.#exchange(request, ended, onActivity, onApplied);
    } catch (error) {
      if (limit.signal.aborted) throw limit.signal.reason;
      throw error instanceof PublicError
        ? error
        : new PublicError('The connection to the iTwin.js service, which makes checkpoints, ended early.', {
            cause: error,
          });
    } finally {
      clearInterval(watch);
      limit.abort();
    }
  }

  async #exchange(
    request: WorkRequest,
    signal: AbortSignal,
    onActivity: () => void,
    onApplied: (index: number) => void,
  ): Promise<WorkResult> {
    const sizes = await Promise.all(
      [request.file, ...request.changesets.map(({ path }) => path)].map(async (file) => (await stat(file)).size),
    );
    const call = this.#open('POST', workPath, signal);
    await awaitContinue(call);
    onActivity();
    const answered = answerOf(call);
    // The first failure gives the reason.
    const [response] = await Promise.all([
      answered,
      pipeline(Readable.from(bodyOf(request, sizes, onActivity)), call, { signal }),
    ]);
    const reader = new CountedReader(response, onActivity);
    for (;;) {
      const event: unknown = JSON.parse(await reader.line());
      if (!validEvent()(event)) throw new Error('the iTwin.js service sent an event that is not valid');
      if ('applied' in event) onApplied(event.applied);
      else if ('fault' in event)
        throw new FileFaultError(event.fault, event.kind, event.detail, event.highestBriefcaseId);
      else if ('failed' in event) throw event.final ? new FinalError(event.failed) : new PublicError(event.failed);
      else if ('result' in event) {
        await receive(
          reader,
          event,
          sizes.reduce((sum, size) => sum + size, 0),
          request.file,
          signal,
        );
        return event.result;
      }
    }
  }
}

/** Replaces the file that was sent with the finished file. */
async function receive(
  reader: CountedReader,
  { result, size }: Extract<WorkEvent, { result: unknown }>,
  sent: number,
  file: string,
  signal: AbortSignal,
): Promise<void> {
  if (size > maxWorkBytes(sent))
    throw new FinalError('The finished file is larger than any that iTwin.js makes of these files.');
  if (Math.max(result.iModelIdOffset, result.iTwinIdOffset) > size - 16)
    throw new FinalError('The iTwin.js service reported offsets beyond the end of the finished file.');
  const arriving = `${file}.arriving`;
  await pipeline(reader.pieces(size), createWriteStream(arriving, { mode: 0o600 }), { signal });
  await rename(arriving, file);
}

/** Waits for the `100 Continue` of the service. @throws ServiceBusyError, PublicError */
async function awaitContinue(call: ClientRequest): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  call.once('continue', resolve);
  call.once('error', (error) => reject(new ServiceBusyError(error)));
  call.once('response', (response) => {
    response.resume();
    if (response.statusCode === 503) reject(new ServiceBusyError(new Error('it has no free slot')));
    else
      reject(
        new PublicError('The iTwin.js service, which makes checkpoints, refuses the work of this server.', {
          cause: new Error(`it answers ${response.statusCode}; are the keys the same?`),
        }),
      );
  });
  const late = setTimeout(() => call.destroy(new Error(`no answer within ${connectMs} ms`)), connectMs);
  call.flushHeaders();
  try {
    await promise;
  } finally {
    clearTimeout(late);
    call.removeAllListeners('continue').removeAllListeners('response');
  }
}

/** The response to a request. @throws Error for any status other than 200 */
function answerOf(call: ClientRequest): Promise<IncomingMessage> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  call.once('error', reject);
  call.once('response', (response) => {
    if (response.statusCode === 200) resolve(response);
    else {
      response.resume();
      reject(new Error(`the iTwin.js service answered ${response.statusCode}`));
    }
  });
  // Prevents an unhandled rejection if the caller fails before it awaits this promise.
  promise.catch(() => undefined);
  return promise;
}

async function* bodyOf(
  { file, changesets, purpose, countMissingGuids }: WorkRequest,
  sizes: readonly number[],
  onChunk: () => void,
): AsyncGenerator<Buffer> {
  const [size = 0, ...changesetSizes] = sizes;
  const head: WorkHead = {
    purpose,
    countMissingGuids,
    size,
    changesets: changesets.map(({ id, parentId, index, schema }, n) => ({
      id,
      parentId,
      index,
      schema,
      size: changesetSizes[n] ?? 0,
    })),
  };
  const text = Buffer.from(JSON.stringify(head));
  const length = Buffer.alloc(4);
  length.writeUInt32BE(text.length);
  yield Buffer.concat([length, text]);
  for (const each of [file, ...changesets.map(({ path }) => path)])
    for await (const chunk of createReadStream(each)) {
      onChunk();
      yield chunk as Buffer;
    }
}
