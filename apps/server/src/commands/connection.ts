import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import path from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import type { Command } from 'commander';
import { hasIssuer } from '../wiring/dataFolder.ts';
import { anywhere, ForbiddenAddressError, send, type Outlet } from '../http/outbound.ts';
import { readAtMost } from '../http/readAtMost.ts';
import { ownOrigins } from '../wiring/ownAddresses.ts';
import { exitCodes, ExitError } from './exit.ts';
import { currentLogin, savedLogin } from './savedLogins.ts';
import { withoutTrailingSlashes } from '../http/trailingSlashes.ts';
import { faultOf, findServer, type FoundServer, type ServerOptions } from './serverAddress.ts';

export interface ConnectionOptions extends ServerOptions {
  token?: string;
  verbose?: boolean;
}

/** Adds the options of commands that call a server. */
export function withConnection(command: Command): Command {
  return command
    .option(
      '--url <url>',
      'address of the server; by default $OFFSHOOT_URL, localhost with $OFFSHOOT_PORT, or that of the data folder',
    )
    .option(
      '--token <token>',
      'bearer token; by default $OFFSHOOT_TOKEN, else that of offshoot login, else one is minted from the data folder',
    )
    .option('--data <folder>', 'data folder of the server; by default $OFFSHOOT_DATA, else ./offshoot-data')
    .option('--verbose', 'say on standard error which server is called, as whom, and why');
}

/** Longest wait for a rate limit, seconds: the longest rate limit window is one hour. */
const longestWaitSeconds = 3700;
/**
 * Attempts per rate-limited request. Each waits at least twice as long as the one before, whatever Retry-After says.
 */
const rateLimitAttempts = 8;
const firstWaitMs = 20;

/**
 * Longest wait for an answer. Completing a push is the slowest request: it reads the whole file, for at most two
 * minutes.
 */
const requestTimeoutMs = 300_000;

/** Largest accepted answer, bytes: a full page of 1,000 changesets has about 2 MiB. */
const longestAnswerBytes = 64 * 2 ** 20;

/** Most items of a list, unless its reader sets a lower limit. */
const longestList = 10_000_000;
/** Most consecutive empty pages of a list that still link to a next page. */
const emptyPages = 10;

const tokenSeconds = 3600;

/** A complete answer. */
interface Answer {
  status: number;
  headers: IncomingHttpHeaders;
  text: string;
}

/** Options of a connection. */
interface ConnectionSettings {
  /** For long operations: waits for a rate limit to end instead of failing. */
  waitsForRateLimit?: boolean;
  /** Restricts the addresses of requests. */
  outlet?: Outlet;
}

/** A connection to a server as one caller. */
export class Connection {
  readonly #base: string;
  /** Where the address comes from. */
  readonly #from: string;
  /** Origins that the token may be sent to. */
  readonly #origins: ReadonlySet<string>;
  readonly #token: () => Promise<string>;
  readonly #waitsForRateLimit: boolean;
  readonly #outlet: Outlet;

  private constructor(
    base: string,
    from: string,
    origins: ReadonlySet<string>,
    token: () => Promise<string>,
    { waitsForRateLimit = false, outlet = anywhere }: ConnectionSettings,
  ) {
    this.#base = base;
    this.#from = from;
    this.#origins = origins;
    this.#token = token;
    this.#waitsForRateLimit = waitsForRateLimit;
    this.#outlet = outlet;
  }

  /** @throws ExitError usage: no token, or none can be minted for the address */
  static async open(options: ConnectionOptions, settings: ConnectionSettings = {}): Promise<Connection> {
    const server = findServer(options, { login: currentLogin() });
    const base = baseOf(server.url);
    const { origin } = new URL(base);
    const given = options.token ?? process.env['OFFSHOOT_TOKEN'];
    // A data folder that is named is meant, also for the token.
    const login = given === undefined && options.data === undefined ? savedLogin(origin) : undefined;
    if (options.verbose === true)
      explain(
        base,
        server,
        options.token !== undefined ? '--token' : given !== undefined ? 'OFFSHOOT_TOKEN' : login && 'offshoot login',
      );
    const token = given === undefined ? login : async () => given;
    if (token !== undefined) return new Connection(base, server.from, new Set([origin]), token, settings);
    requireIssuer(server.data);
    // A token with all permissions of the first user must not be sent to another server.
    const own = new Set(ownOrigins(server.data));
    if (!own.has(origin))
      throw new ExitError(
        exitCodes.usage,
        `${origin} is no address of the installation at ${path.resolve(server.data)}, so no token is minted for it (${own.size === 0 ? 'no server has been started there' : `its own: ${[...own].join(', ')}`}). Give another --url, a --token, or set publicUrl on the server`,
      );
    return new Connection(base, server.from, own, await mintedTokens(server.data), settings);
  }

  /**
   * @throws ExitError refused or unreachable, with the server's message; failed if the address belongs to another
   * server
   */
  async request(
    method: string,
    pathOrUrl: string,
    body?: unknown,
    prefer: 'minimal' | 'representation' = 'representation',
  ): Promise<{ body: unknown; headers: IncomingHttpHeaders }> {
    const url = this.#addressOf(pathOrUrl);
    for (let attempt = 1; ; attempt++) {
      const { status, headers, text } = await this.#send(method, url, body, prefer);
      const waitSeconds = Number(headers['retry-after'] ?? NaN);
      if (
        status === 429 &&
        this.#waitsForRateLimit &&
        attempt < rateLimitAttempts &&
        waitSeconds <= longestWaitSeconds
      ) {
        await pause(Math.max(waitSeconds * 1000, firstWaitMs * 2 ** attempt));
        continue;
      }
      if (status >= 200 && status < 300)
        return { body: text === '' ? undefined : parseAnswer(text, url.href), headers };
      if (status >= 300 && status < 400)
        throw new ExitError(
          exitCodes.failed,
          `the server leads to another address, ${headers.location ?? 'which it does not name'}; the token goes to ${url.origin} only`,
        );
      throw new ExitError(
        status >= 500 ? exitCodes.unreachable : exitCodes.refused,
        refusalText(status, headers, text),
      );
    }
  }

  /**
   * All items of a list, page by page.
   * @throws ExitError failed if the list has more than `most` items or does not end
   */
  async *list<T>(
    first: string,
    key: string,
    { prefer, most = longestList }: { prefer?: 'minimal'; most?: number } = {},
  ): AsyncIterable<T> {
    const seen = new Set<string>();
    let count = 0;
    let empty = 0;
    for (let next: string | undefined = first; next !== undefined;) {
      if (seen.has(next))
        throw new ExitError(exitCodes.failed, `a list links back to a page that was already read: ${next}`);
      seen.add(next);
      const { body } = await this.request('GET', next, undefined, prefer);
      const page = body as Record<string, T[] | undefined> & { _links?: { next?: { href: string } | null } };
      const items = page[key];
      if (!Array.isArray(items))
        throw new ExitError(exitCodes.failed, `the response of ${next} contains no list of ${key}`);
      count += items.length;
      empty = items.length === 0 ? empty + 1 : 0;
      if (count > most || empty > emptyPages)
        throw new ExitError(
          exitCodes.failed,
          `the list of ${key} does not end: ${count > most ? `it has more than ${most} items` : `${empty} of its pages in a row are empty`}`,
        );
      yield* items;
      next = page._links?.next?.href;
    }
  }

  /** The same as an array. */
  async all<T>(first: string, key: string, options: { prefer?: 'minimal'; most?: number } = {}): Promise<T[]> {
    const items: T[] = [];
    for await (const item of this.list<T>(first, key, options)) items.push(item);
    return items;
  }

  /** @throws ExitError failed if the address belongs to another server, which must not receive the token */
  #addressOf(pathOrUrl: string): URL {
    if (pathOrUrl.startsWith('/')) return new URL(`${this.#base}${pathOrUrl}`);
    const url = URL.canParse(pathOrUrl) ? new URL(pathOrUrl) : undefined;
    if (url !== undefined && this.#origins.has(url.origin)) return url;
    throw new ExitError(
      exitCodes.failed,
      `an answer of the server leads to another one, ${url?.origin ?? pathOrUrl}, and the token is for ${[...this.#origins].join(', ')}; if that is its own address too, give it with --url`,
    );
  }

  async #send(method: string, url: URL, body: unknown, prefer: string): Promise<Answer> {
    const signal = AbortSignal.timeout(requestTimeoutMs);
    try {
      const answer = await send(url, this.#outlet, {
        method,
        headers: {
          authorization: `Bearer ${await this.#token()}`,
          accept: 'application/vnd.bentley.itwin-platform.v2+json',
          prefer: `return=${prefer}`,
          ...(body !== undefined && { 'content-type': 'application/json' }),
        },
        ...(body !== undefined && { body: JSON.stringify(body) }),
        signal,
      });
      return { status: answer.statusCode ?? 0, headers: answer.headers, text: await readBounded(answer) };
    } catch (error) {
      if (error instanceof ExitError) throw error;
      if (error instanceof ForbiddenAddressError) throw new ExitError(exitCodes.usage, error.message, error);
      if (signal.aborted)
        throw new ExitError(
          exitCodes.unreachable,
          `the server at ${this.#base} gave no answer within ${requestTimeoutMs / 1000} s`,
          error,
        );
      throw new ExitError(
        exitCodes.unreachable,
        `no server answers at ${this.#base}; is one started (npm start)?${this.#from === '--url' ? '' : ` The address is from ${this.#from}.`}`,
        error,
      );
    }
  }
}

/** @throws ExitError failed if the answer exceeds the limit */
async function readBounded(answer: IncomingMessage): Promise<string> {
  const tooLong = () =>
    new ExitError(exitCodes.failed, `a response of the server is larger than ${longestAnswerBytes / 2 ** 20} MiB`);
  return (await readAtMost(answer, longestAnswerBytes, tooLong)).toString('utf8');
}

function parseAnswer(text: string, url: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new ExitError(
      exitCodes.failed,
      `the answer of ${url} is no JSON: is it the address of an iModels API?`,
      error,
    );
  }
}

function refusalText(status: number, headers: IncomingHttpHeaders, text: string): string {
  try {
    const { error } = JSON.parse(text) as {
      error: { code: string; message: string; details?: { message: string; target?: string }[] };
    };
    const details = (error.details ?? [])
      .map(({ message, target }) => `\n  ${target === undefined ? '' : `${target}: `}${message}`)
      .join('');
    const wait = headers['retry-after'];
    return `${error.message} (${status} ${error.code})${wait === undefined ? '' : ` Try again in ${wait} s.`}${details}`;
  } catch {
    return `the server answered ${status}`;
  }
}

/** The server's base address. Users often pass the API address, which ends in `/imodels`. @throws ExitError */
function baseOf(url: string): string {
  if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol))
    throw new ExitError(exitCodes.usage, `'${url}' is not a valid address; write it like http://localhost:4700`);
  return withoutTrailingSlashes(withoutTrailingSlashes(url).replace(/\/imodels$/i, ''));
}

/** `--verbose`: which server is called, as whom, and why. */
function explain(base: string, { from, data }: FoundServer, source: string | undefined): void {
  const token =
    source !== undefined ? `that of ${source}` : `minted for the first user of the data folder ${path.resolve(data)}`;
  process.stderr.write(`offshoot: server ${base}, from ${from}\noffshoot: token: ${token}\n`);
}

/** @throws ExitError usage if no token can be minted */
function requireIssuer(dataDir: string): void {
  if (hasIssuer(dataDir)) return;
  throw new ExitError(
    exitCodes.usage,
    `no token: give --token, set OFFSHOOT_TOKEN, or name the server's data folder with --data (${faultOf(dataDir)})`,
  );
}

/**
 * Tokens of the data folder's issuer. Each is used for half its lifetime, so that it never expires during a request.
 */
async function mintedTokens(dataDir: string): Promise<() => Promise<string>> {
  // Only here: checking the users file takes longer to load than the rest of the command.
  const { mintToken } = await import('./token.ts');
  const mint = async () => ({
    token: await mintToken({ data: dataDir, lifeSeconds: tokenSeconds }),
    renewAt: Date.now() + (tokenSeconds * 1000) / 2,
  });
  let current = await mint();
  return async () => {
    if (Date.now() >= current.renewAt) current = await mint();
    return current.token;
  };
}
