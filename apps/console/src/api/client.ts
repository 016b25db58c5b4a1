import { serverAddress } from '../base.ts';
import { ApiFault, faultOf } from './fault.ts';

/** Longest time for an answer of the API, milliseconds. */
const answerMs = 60_000;

const acceptedType = 'application/vnd.bentley.itwin-platform.v2+json';

/** Returns a token that is still valid; undefined if nobody is signed in. */
type TokenSource = () => Promise<string | undefined>;
let tokenSource: TokenSource = async () => undefined;
let onUnauthorized: () => void = () => undefined;

/** Sets where tokens come from, and what happens when the server refuses one. */
export function useTokens(source: TokenSource, unauthorized: () => void): void {
  tokenSource = source;
  onUnauthorized = unauthorized;
}

export interface RequestOptions {
  method?: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  body?: unknown;
  /** Full representations in lists. */
  full?: boolean;
  signal?: AbortSignal | undefined;
  /** Makes a POST take effect once, however often it is sent. */
  idempotencyKey?: string;
}

async function send(path: string, options: RequestOptions): Promise<Response> {
  const { method = 'GET', body, full = false, signal, idempotencyKey } = options;
  const token = await tokenSource();
  const timeout = AbortSignal.timeout(answerMs);
  let response: Response;
  try {
    response = await fetch(`${serverAddress}${path}`, {
      method,
      signal: signal === undefined ? timeout : AbortSignal.any([signal, timeout]),
      headers: {
        accept: acceptedType,
        // Links in the answer lead through this server, because no other host is allowed for this page.
        'offshoot-console': '1',
        ...(token !== undefined && { authorization: `Bearer ${token}` }),
        ...(full && { prefer: 'return=representation' }),
        ...(body !== undefined && { 'content-type': 'application/json' }),
        ...(idempotencyKey !== undefined && { 'idempotency-key': idempotencyKey }),
      },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
  } catch (error) {
    if (signal?.aborted === true) throw error;
    throw new ApiFault(0, 'NoAnswer', 'The server does not answer.');
  }
  if (response.ok) return response;
  const fault = await faultOf(response);
  if (fault.status === 401) onUnauthorized();
  throw fault;
}

/** Sends a request to the API. @returns the parsed answer; undefined for an answer without a body */
export async function api<T>(path: string, options: RequestOptions = {}): Promise<T> {
  const response = await send(path, options);
  if (response.status === 204 || response.headers.get('content-length') === '0') return undefined as T;
  const text = await response.text();
  return (text === '' ? undefined : JSON.parse(text)) as T;
}

/** A picture or another file that the API itself answers. */
export async function apiBlob(path: string, signal?: AbortSignal): Promise<Blob> {
  return (await send(path, { signal })).blob();
}

/** Sends a request whose answer is in headers, such as that of a clone. */
export async function apiHeaders(path: string, options: RequestOptions): Promise<Headers> {
  return (await send(path, options)).headers;
}

/** Reads the file behind a signed link of an answer. */
export async function fetchLink(href: string, signal?: AbortSignal): Promise<Response> {
  const response = await fetch(href, {
    // Clients that speak the protocol of Azure are not redirected to the store, which this page may not reach.
    headers: { 'x-ms-version': '2024-11-04' },
    ...(signal !== undefined && { signal }),
  });
  if (!response.ok) throw new ApiFault(response.status, 'LinkRefused', response.statusText);
  return response;
}

/** A page of a list with the query of the next one. */
export interface Paged<T> {
  items: T[];
  next: string | undefined;
}

/** Reads a page of a list. @param query of the first page, or `next` of the page before */
export async function page<T>(
  path: string,
  query: string | Record<string, string | number | undefined>,
  property: string,
  signal?: AbortSignal,
): Promise<Paged<T>> {
  const search = typeof query === 'string' ? query : queryText(query);
  const answer = await api<Record<string, unknown>>(`${path}${search}`, { full: true, signal });
  const next = (answer._links as { next?: { href: string } | null } | undefined)?.next?.href;
  return { items: answer[property] as T[], next: next === undefined ? undefined : new URL(next).search };
}

export function queryText(parameters: Record<string, string | number | undefined>): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters))
    if (value !== undefined && value !== '') search.set(name, String(value));
  const text = search.toString().replaceAll('%24', '$');
  return text === '' ? '' : `?${text}`;
}
