import { ApiError } from './errors.ts';

/**
 * Why a server cannot execute a valid request: `noSpace` = a disk is full, `unavailable` = the database or a disk does not
 * respond or is overloaded. The same request may succeed later.
 */
export type Outage = 'noSpace' | 'unavailable';

/** Base class of the server's own errors for a database or store that does not respond or is overloaded. */
export abstract class UnavailableError extends Error {}

/** Primary result codes of SQLite: busy, locked, out of memory, read-only, I/O error, cannot open. */
const sqliteUnavailable = new Set([5, 6, 7, 8, 10, 14]);
const sqliteFull = 13;
/** PostgreSQL: read-only, statement timeout, lock timeout, idle-in-transaction timeout; below, the timeouts of `pg`, which have no code. */
const postgresUnavailable = new Set(['25006', '57014', '55P03', '25P03']);
const driverTimeout = /^(timeout exceeded when trying to connect|Query read timeout)$/;
/** Maximum depth of the chain of causes; no error of this server has more. */
const mostCauses = 5;

/** Classifies an error by itself or its causes; undefined if it does not indicate an outage. */
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
  // Error classes of PostgreSQL: 08 connection, 53 insufficient resources, 57P shutdown or startup.
  if (typeof code === 'string' && (postgresUnavailable.has(code) || /^(08|53|57P)[0-9A-Z]+$/.test(code)))
    return 'unavailable';
  return typeof message === 'string' && driverTimeout.test(message) ? 'unavailable' : undefined;
}

/** Value of `Retry-After`, seconds. Freeing disk space takes longer than restarting a database. */
const retryAfter: Record<Outage, string> = { noSpace: '60', unavailable: '5' };

/** The response to a request that fails because of an outage. */
export function outageError(outage: Outage, cause: unknown): ApiError {
  return new ApiError(outage === 'noSpace' ? 'InsufficientStorage' : 'Unavailable', {
    cause,
    headers: { 'retry-after': retryAfter[outage] },
  });
}
