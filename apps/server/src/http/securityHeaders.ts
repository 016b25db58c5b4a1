import { createHash } from 'node:crypto';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';

/**
 * Sent with every response: no MIME sniffing, no script execution, no framing, and no referrer, because the URL may be a
 * signed link.
 */
export const securityHeaders: Readonly<Record<string, string>> = {
  'x-content-type-options': 'nosniff',
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'x-frame-options': 'DENY',
  'referrer-policy': 'no-referrer',
};

/** Sets the headers before any other handler, so that every response has them. */
export function addSecurityHeaders(server: Server): void {
  const headers = Object.entries(securityHeaders);
  const add = (_request: IncomingMessage, response: ServerResponse): void => {
    for (const [name, value] of headers) response.setHeader(name, value);
  };
  for (const event of ['request', 'checkContinue', 'checkExpectation']) server.prependListener(event, add);
}

/**
 * The `Content-Security-Policy` of an HTML page: resources only from this origin, and only the inline scripts that the page
 * contains now, by hash. Inline styles are allowed, because the components of the API documentation set them from scripts.
 */
export function pagePolicy(html: string): string {
  const hashes = [...html.matchAll(/<script(?: type="[^"]*")?>([^]*?)<\/script>/g)].map(
    ([, script]) =>
      `'sha256-${createHash('sha256')
        .update(script ?? '')
        .digest('base64')}'`,
  );
  return [
    "default-src 'none'",
    `script-src 'self' ${hashes.join(' ')}`,
    "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data:",
    "font-src 'self' data:",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join('; ');
}
