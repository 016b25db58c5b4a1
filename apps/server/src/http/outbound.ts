/** Requests that leave this machine. */
import http, { type IncomingMessage, type OutgoingHttpHeaders } from 'node:http';
import https from 'node:https';
import { RequestFilteringHttpAgent, RequestFilteringHttpsAgent } from 'request-filtering-agent';

/** Which addresses requests may go to. */
export interface Outlet {
  http: http.Agent;
  https: https.Agent;
  /** Whether only https may be used. */
  encryptedOnly: boolean;
}

/** For addresses that the operator gave: anywhere. */
export const anywhere: Outlet = { http: http.globalAgent, https: https.globalAgent, encryptedOnly: false };

/** How long a connection is kept for the next request, milliseconds: as long as Node keeps those of its own. */
const idleMs = 5000;

/**
 * For addresses that others chose. Those of this machine and of private networks are refused when the connection is made, so that a name cannot
 * be pointed at one afterwards.
 * @param allowPrivate lets requests go there too, and without encryption
 */
export function filtered(allowPrivate: boolean): Outlet {
  const options = {
    keepAlive: true,
    timeout: idleMs,
    allowPrivateIPAddress: allowPrivate,
    allowMetaIPAddress: allowPrivate,
  };
  return {
    http: new RequestFilteringHttpAgent(options),
    https: new RequestFilteringHttpsAgent(options),
    encryptedOnly: !allowPrivate,
  };
}

/** A request was to go to an address that it may not go to. */
export class ForbiddenAddressError extends Error {
  constructor(url: URL, why: string, cause?: unknown) {
    super(`${url.origin} is not allowed: ${why}`, { cause });
    this.name = 'ForbiddenAddressError';
  }
}

/**
 * Sends one request and gives the answer as it comes, its body unread. Redirects are not followed.
 * @param options.signal ends the request, and the body of the answer
 * @throws ForbiddenAddressError, or what the connection throws
 */
export function send(
  url: URL,
  outlet: Outlet,
  options: { method?: string; headers: OutgoingHttpHeaders; body?: string; signal: AbortSignal },
): Promise<IncomingMessage> {
  const { method = 'GET', headers, body, signal } = options;
  const encrypted = url.protocol === 'https:';
  if (!encrypted && url.protocol !== 'http:')
    return Promise.reject(new ForbiddenAddressError(url, 'it is neither http nor https'));
  if (!encrypted && outlet.encryptedOnly) return Promise.reject(new ForbiddenAddressError(url, 'it is not encrypted'));
  return new Promise((resolve, reject) => {
    const [{ request }, agent] = encrypted ? [https, outlet.https] : [http, outlet.http];
    const sent = request(
      url,
      {
        method,
        agent,
        signal,
        headers: { ...headers, ...(body !== undefined && { 'content-length': Buffer.byteLength(body) }) },
      },
      resolve,
    );
    sent.once('error', (error) => {
      // Words of request-filtering-agent, which gives its errors no code.
      const refused = error.message.includes('is not allowed');
      reject(
        refused
          ? new ForbiddenAddressError(url, 'it is an address of this machine or of a private network', error)
          : error,
      );
    });
    sent.end(body);
  });
}
