import { ApiError } from './errors.ts';

/**
 * What keeps a server from carrying out a request that is right in itself: `noSpace` = a disk is full, `unavailable` = the
 * database or a disk does not answer, or not for so many at once. Either may pass without anybody changing the request.
 */
export type Outage = 'noSpace' | 'unavailable';

/** Base of the errors by which the server itself says that the database or a store does not answer, or not to so many callers at once. */
export abstract class UnavailableError extends Error {}

/** Primary result codes of SQLite: busy, locked, out of memory, read-only, I/O error, cannot open. */
const sqliteUnavailable = new Set([5, 6, 7, 8, 10, 14]);
const sqliteFull = 13;
/** PostgreSQL: read-only, cancelled by a limit, a lock not had in time, ended for idleness, and how `pg` says that it waited too long. */
const postgresUnavailable = new Set(['25006', '57014', '55P03', '25P03']);
const waitedTooLong = /^(timeout exceeded when trying to connect|Query read timeout)$/;
/** Causes that are followed: more than any error of ours has. */
const mostCauses = 5;

/** Recognizes an outage by the error that it made, or by the causes of that; undefined for all other errors. */
export function outageOf(error: unknown): Outage | undefined {
  let cause = error;
  for (let depth = 0; depth < mostCauses && typeof cause === 'object' && cause !== null; depth++) {
    const found = classify(cause);
    if (found !== undefined) return found;
    ({ cause } = cause as { cause?: unknown });
  }
  return undefined;
}

function classify(error: object): Outage | undefined {
  if (error instanceof UnavailableError) return 'unavailable';
  const { code, errcode, message } = error as { code?: unknown; errcode?: unknown; message?: unknown };
  if (typeof errcode === 'number') {
    const primary = errcode & 0xff;
    return primary === sqliteFull ? 'noSpace' : sqliteUnavailable.has(primary) ? 'unavailable' : undefined;
  }
  if (code === 'ENOSPC' || code === 'EDQUOT' || code === '53100') return 'noSpace';
  if (code === 'EIO' || code === 'EROFS') return 'unavailable';
  // Classes of PostgreSQL: 08 connection, 53 resources, 57P being shut down or started.
  if (typeof code === 'string' && (postgresUnavailable.has(code) || /^(08|53|57P)[0-9A-Z]+$/.test(code)))
    return 'unavailable';
  return typeof message === 'string' && waitedTooLong.test(message) ? 'unavailable' : undefined;
}

/** Seconds after which a client may try again. A disk is not emptied as fast as a database is back. */
const retryAfter: Record<Outage, string> = { noSpace: '60', unavailable: '5' };

/** The answer to a request that an outage kept from being carried out. */
export function outageError(outage: Outage, cause: unknown): ApiError {
  return new ApiError(outage === 'noSpace' ? 'InsufficientStorage' : 'Unavailable', {
    cause,
    headers: { 'retry-after': retryAfter[outage] },
  });
}
