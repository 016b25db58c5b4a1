import type { FastifyRequest } from 'fastify';
import type { Config } from '../config.ts';
import { proxyTrust } from '../http/trustedProxies.ts';
import { withoutTrailingSlashes } from '../http/trailingSlashes.ts';

/**
 * The server's address as the client wrote it, without a slash at the end, unless the configuration fixes one. Behind a proxy
 * that is trusted, `X-Forwarded-Proto`, `-Host`, `-Port` and `-Prefix` say what the client wrote.
 */
export function baseUrlOf(
  request: FastifyRequest,
  { publicUrl, trustProxy }: Pick<Config, 'publicUrl' | 'trustProxy'>,
): string {
  if (publicUrl !== undefined) return publicUrl;
  const host = /^[\w.:[\]-]+$/.test(request.host) ? request.host : 'localhost';
  if (!proxyTrust(trustProxy)(request.socket.remoteAddress, 0)) return `${request.protocol}://${host}`;
  return `${request.protocol}://${host}${portAfter(host, request)}${prefixOf(request)}`;
}

/** `X-Forwarded-Port`, where the host does not say a port by itself and the protocol's own is another one. */
function portAfter(host: string, request: FastifyRequest): string {
  const port = forwarded(request, 'x-forwarded-port');
  const usual = request.protocol === 'https' ? '443' : '80';
  if (/:\d+$/.test(host) || !/^\d{1,5}$/.test(port) || Number(port) === 0 || Number(port) > 65_535 || port === usual)
    return '';
  return `:${port}`;
}

/** `X-Forwarded-Prefix`: the path that the proxy takes off before it passes a request on. */
function prefixOf(request: FastifyRequest): string {
  const prefix = withoutTrailingSlashes(forwarded(request, 'x-forwarded-prefix'));
  return /^(\/[\w.~%-]+)+$/.test(prefix) && prefix.length <= 255 && !/\/\.{1,2}(\/|$)/.test(prefix) ? prefix : '';
}

/** The first value of a header that several proxies may have written: what the outermost one saw. */
function forwarded(request: FastifyRequest, name: string): string {
  return (
    String(request.headers[name] ?? '')
      .split(',', 1)[0]
      ?.trim() ?? ''
  );
}
