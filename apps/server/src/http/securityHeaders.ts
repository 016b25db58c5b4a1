import { createHash } from 'node:crypto';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';

/**
 * On every answer: nobody guesses another type than the declared one, runs it as a page, shows it in a frame, or passes on its
 * address, which may be a signed link.
 */
export const securityHeaders: Readonly<Record<string, string>> = {
  'x-content-type-options': 'nosniff',
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'x-frame-options': 'DENY',
  'referrer-policy': 'no-referrer',
};

/** Sets the headers before anything else sees the request, so that no answer goes without them, whoever gives it. */
export function addSecurityHeaders(server: Server): void {
  const add = (_request: IncomingMessage, response: ServerResponse): void => {
    for (const [name, value] of Object.entries(securityHeaders)) response.setHeader(name, value);
  };
  for (const event of ['request', 'checkContinue', 'checkExpectation']) server.prependListener(event, add);
}

/**
 * The `Content-Security-Policy` of a page of this server: it loads from this origin alone, and of scripts in the page only those
 * that are there now. Styles in the page are allowed, because the components of the API document set them from their scripts.
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
