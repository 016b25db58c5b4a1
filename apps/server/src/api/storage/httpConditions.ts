import type { IncomingHttpHeaders } from 'node:http';
import type { ByteRange } from '../../storage/blobStore.ts';

/**
 * Whether a list of entity tags (RFC 9110, 13.1) names one.
 * @param etag with its quotes
 * @param weak compare weakly: a tag marked `W/` counts too
 */
export function namesEntityTag(header: string, etag: string, weak: boolean): boolean {
  if (header.trim() === '*') return true;
  // One pass: a tag may hold commas, and the header is a stranger's.
  for (let at = 0; at < header.length;) {
    const open = header.indexOf('"', at);
    const close = open === -1 ? -1 : header.indexOf('"', open + 1);
    if (close === -1) return false;
    const isWeak = open >= 2 && header[open - 2] === 'W' && header[open - 1] === '/';
    if ((weak || !isWeak) && header.slice(open, close + 1) === etag) return true;
    at = close + 1;
  }
  return false;
}

/** What of a file a request asks for. `unsatisfiable`: nothing that it has. Undefined: all of it. */
export function wantedRange(
  headers: IncomingHttpHeaders,
  etag: string,
  size: number,
): ByteRange | 'unsatisfiable' | undefined {
  const ifRange = headers['if-range'];
  // RFC 9110, 13.1.5: compared strongly; a date never matches, because files here have none.
  if (typeof ifRange === 'string' && ifRange.trim() !== etag) return undefined;
  // Azure's client asks to resume a broken download with x-ms-range.
  const header = headers['x-ms-range'] ?? headers.range;
  return typeof header === 'string' ? parseRange(header, size) : undefined;
}

/**
 * The one range of bytes that a header asks for (RFC 9110, 14.1.2). Undefined when it is not valid, of another unit, or several
 * ranges: these may be answered with the whole file.
 */
function parseRange(header: string, size: number): ByteRange | 'unsatisfiable' | undefined {
  const equals = header.indexOf('=');
  if (equals === -1 || header.slice(0, equals).trim().toLowerCase() !== 'bytes') return undefined;
  const spec = header.slice(equals + 1).trim();
  const dash = spec.indexOf('-');
  const [first, last] = [positionOf(spec.slice(0, dash).trimEnd()), positionOf(spec.slice(dash + 1).trimStart())];
  if (dash === -1 || first === undefined || last === undefined || (first === null && last === null)) return undefined;
  if (first === null)
    return last === 0
      ? 'unsatisfiable'
      : size === 0
        ? undefined
        : { start: Math.max(0, size - (last as number)), end: size - 1 };
  if (last !== null && last < first) return undefined;
  return first >= size ? 'unsatisfiable' : { start: first, end: Math.min(last ?? size - 1, size - 1) };
}

/** A number of bytes; null for none, undefined for what is no number. */
function positionOf(text: string): number | null | undefined {
  if (text === '') return null;
  return /^\d+$/.test(text) ? Math.min(Number(text), Number.MAX_SAFE_INTEGER) : undefined;
}
