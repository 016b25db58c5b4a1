/** Outbound HTTP requests. */
import http, { type IncomingMessage, type OutgoingHttpHeaders } from 'node:http';
import https from 'node:https';
import { RequestFilteringHttpAgent, RequestFilteringHttpsAgent } from 'request-filtering-agent';

/** Which destinations are allowed. */
export interface Outlet {
  http: http.Agent;
  https: https.Agent;
  /** Whether only https is allowed. */
  encryptedOnly: boolean;
}

/** For URLs configured by the operator: any destination. */
export const anywhere: Outlet = { http: http.globalAgent, https: https.globalAgent, encryptedOnly: false };

/** Keep-alive time of idle connections, milliseconds: the same as that of Node's global agent. */
const idleMs = 5000;

/**
 * For URLs chosen by users. Loopback and private addresses are refused at connection time, after name resolution, so that
 * a name cannot be redirected to one after a check (DNS rebinding).
 * @param allowPrivate also allows these addresses, and plain http
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

/** The destination of a request is not allowed. */
export class ForbiddenAddressError extends Error {
  constructor(url: URL, why: string, cause?: unknown) {
    super(`${url.origin} is not allowed: ${why}`, { cause });
    this.name = 'ForbiddenAddressError';
  }
}

/**
 * Sends one request and returns the response with its body unread. Redirects are not followed.
 * @param options.signal aborts the request and the body of the response
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
      // Matched by message, because the errors of request-filtering-agent have no code.
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
