import { existsSync } from 'node:fs';
import path from 'node:path';
import { Readable } from 'node:stream';
import { setTimeout as pause } from 'node:timers/promises';
import type { Command } from 'commander';
import { exitCodes, ExitError } from './exit.ts';
import { mintToken } from './token.ts';

export interface ConnectionOptions {
  url: string;
  token?: string;
  data: string;
}

/** Adds the options of commands that speak to a server. */
export function withConnection(command: Command): Command {
  return command
    .option('--url <url>', 'address of the server', process.env.OFFSHOOT_URL ?? 'http://localhost:4700')
    .option('--token <token>', 'bearer token; by default $OFFSHOOT_TOKEN, else one is minted from the data folder')
    .option('--data <folder>', 'data folder to mint a token from', process.env.OFFSHOOT_DATA ?? 'offshoot-data');
}

/** Longest wait for a rate limit, seconds: the longest window of a tier is an hour. */
const longestWaitSeconds = 3700;

/** Longest wait for an answer: the completion of a push reads the whole file, for two minutes at most. */
const requestTimeoutMs = 300_000;

/** Longest answer that is read, bytes; a page of 1,000 changesets in full has about 2 MiB. */
const longestAnswerBytes = 256 * 2 ** 20;

const tokenSeconds = 3600;

/** A server, as one caller. */
export class Connection {
  readonly #base: string;
  readonly #token: () => Promise<string>;
  readonly #patient: boolean;

  private constructor(base: string, token: () => Promise<string>, patient: boolean) {
    this.#base = base;
    this.#token = token;
    this.#patient = patient;
  }

  /** @param patient for long work: a rate limit is waited for instead of being told */
  static async open(options: ConnectionOptions, patient = false): Promise<Connection> {
    const given = options.token ?? process.env.OFFSHOOT_TOKEN;
    const token = given === undefined ? await mintedTokens(options.data) : async () => given;
    return new Connection(baseOf(options.url), token, patient);
  }

  /** @throws ExitError refused or unreachable, with what the server said */
  async request(method: string, pathOrUrl: string, body?: unknown, prefer: 'minimal' | 'representation' = 'representation'): Promise<{ body: unknown; headers: Headers }> {
    const url = pathOrUrl.startsWith('http') ? pathOrUrl : `${this.#base}${pathOrUrl}`;
    let response: Response;
    let text: string;
    try {
      response = await fetch(url, {
        method,
        headers: {
          authorization: `Bearer ${await this.#token()}`,
          accept: 'application/vnd.bentley.itwin-platform.v2+json',
          prefer: `return=${prefer}`,
          ...(body !== undefined && { 'content-type': 'application/json' }),
        },
        ...(body !== undefined && { body: JSON.stringify(body) }),
        signal: AbortSignal.timeout(requestTimeoutMs),
      });
      text = await readBounded(response);
    } catch (error) {
      if (error instanceof ExitError) throw error;
      if ((error as Error).name === 'TimeoutError') throw new ExitError(exitCodes.unreachable, `the server at ${this.#base} gave no answer within ${requestTimeoutMs / 1000} s`, error);
      throw new ExitError(exitCodes.unreachable, `no server answers at ${this.#base}; is one started (npm start)?`, error);
    }
    const waitSeconds = Number(response.headers.get('retry-after') ?? NaN);
    if (response.status === 429 && this.#patient && waitSeconds <= longestWaitSeconds) {
      await pause(waitSeconds * 1000);
      return this.request(method, pathOrUrl, body, prefer);
    }
    if (response.ok) return { body: text === '' ? undefined : parseAnswer(text, url), headers: response.headers };
    throw new ExitError(response.status >= 500 ? exitCodes.unreachable : exitCodes.refused, refusalText(response, text));
  }

  /** All items of a list, page by page. */
  async *list<T>(first: string, key: string, prefer?: 'minimal'): AsyncIterable<T> {
    const seen = new Set<string>();
    for (let next: string | undefined = first; next !== undefined; ) {
      if (seen.has(next)) throw new ExitError(exitCodes.failed, `a page of a list leads back to itself: ${next}`);
      seen.add(next);
      const { body } = await this.request('GET', next, undefined, prefer);
      const page = body as Record<string, T[] | undefined> & { _links?: { next?: { href: string } | null } };
      const items = page[key];
      if (!Array.isArray(items)) throw new ExitError(exitCodes.failed, `the answer of ${next} has no list of ${key}`);
      yield* items;
      next = page._links?.next?.href;
    }
  }
}

/** @throws ExitError when the answer is longer than any of the API */
async function readBounded(response: Response): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  const body: AsyncIterable<Uint8Array> = response.body ?? Readable.from([]);
  for await (const chunk of body) {
    bytes += chunk.length;
    if (bytes > longestAnswerBytes) throw new ExitError(exitCodes.failed, `an answer of the server is longer than ${longestAnswerBytes / 2 ** 20} MiB`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function parseAnswer(text: string, url: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new ExitError(exitCodes.failed, `the answer of ${url} is no JSON: is it the address of an iModels API?`, error);
  }
}

function refusalText(response: Response, text: string): string {
  try {
    const { error } = JSON.parse(text) as { error: { code: string; message: string; details?: { message: string; target?: string }[] } };
    const details = (error.details ?? []).map(({ message, target }) => `\n  ${target === undefined ? '' : `${target}: `}${message}`).join('');
    const wait = response.headers.get('retry-after');
    return `${error.message} (${response.status} ${error.code})${wait === null ? '' : ` Try again in ${wait} s.`}${details}`;
  } catch {
    return `the server answered ${response.status}`;
  }
}

/** The server's address: what people copy ends in `/imodels`, as clients want it, as often as not. @throws ExitError */
function baseOf(url: string): string {
  if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol)) throw new ExitError(exitCodes.usage, `'${url}' is no address; write it like http://localhost:4700`);
  return url.replace(/\/+$/, '').replace(/\/imodels$/i, '').replace(/\/+$/, '');
}

/** Tokens of the data folder's issuer, each used for half its life, so that long work does not outlive one. */
async function mintedTokens(dataDir: string): Promise<() => Promise<string>> {
  if (!existsSync(path.join(dataDir, 'issuer.json')))
    throw new ExitError(exitCodes.usage, `no token: give --token, set OFFSHOOT_TOKEN, or name the server's data folder with --data (there is none at ${path.resolve(dataDir)})`);
  const mint = async () => ({ token: await mintToken({ data: dataDir, lifeSeconds: tokenSeconds }), renewAt: Date.now() + (tokenSeconds * 1000) / 2 });
  let current = await mint();
  return async () => {
    if (Date.now() >= current.renewAt) current = await mint();
    return current.token;
  };
}
