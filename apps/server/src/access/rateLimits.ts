import { rmSync } from 'node:fs';
import path from 'node:path';
import { RateLimiterMemory, RateLimiterPostgres, RateLimiterRes } from 'rate-limiter-flexible';
import type { Config } from '../config.ts';
import type { Database } from '../db/database.ts';
import { openConnection, type Connection } from '../db/sqlite/connection.ts';
import type { Application, Caller } from '../domain.ts';
import { ApiError } from '../errors.ts';
import { outageOf } from '../outages.ts';

/** The interface that the rate limiter library expects of a database client. */
interface LimitClient {
  query(query: { text: string; values: unknown[] }): Promise<{ rows: unknown[] }>;
}

/** The limiters of one window: shared by all servers, and local to this one while the shared counts cannot be written. */
interface Limiters {
  shared: RateLimiterPostgres;
  own: RateLimiterMemory;
}

/** The documented 429 response. @param application absent if the sender is not authenticated yet */
export function limitExceeded(waitSeconds: number, operation: string, application?: Application): ApiError {
  return new ApiError('RateLimitExceeded', {
    headers: {
      // Clone rule: a request above the rate limit gets 429 with Retry-After.
      'retry-after': String(waitSeconds),
      'itwinplatform-ratelimited-api': 'iModels',
      'itwinplatform-ratelimited-operation': operation,
      ...(application !== undefined && {
        'itwinplatform-ratelimited-tier': application.tier,
        'itwinplatform-ratelimited-application': application.id.replace(/[^\x20-\x7e]/g, '?'),
      }),
    },
  });
}

/**
 * The rate limits of each application by its tier: general windows for all requests and additional windows for single
 * operations. When a window is used up, each user of the application still has a reserved share of it. The counts are kept
 * in the database, so that all servers of an installation share them. They need not survive a power failure, which saves a
 * disk write per request: an unlogged table on PostgreSQL, a separate unsynced file on SQLite. The library's statements for
 * PostgreSQL run on SQLite unchanged. While the counts cannot be written, for example on a full disk, each server counts in
 * memory, so that reads remain possible.
 */
export class RateLimits {
  readonly #tiers: Config['tiers'];
  readonly #userShare: number;
  readonly #limiters = new Map<string, Limiters>();
  readonly #client: LimitClient;
  readonly #file: Connection | undefined;

  constructor(config: Pick<Config, 'tiers' | 'dataDir' | 'rateLimits'>, database: Database) {
    this.#tiers = config.tiers;
    this.#userShare = config.rateLimits.userShare;
    if (database.pool === undefined) {
      const file = openLimits(path.join(config.dataDir, 'limits.db'));
      this.#file = file;
      // SQLite treats `$1` as a named parameter.
      this.#client = {
        query: async (query) => {
          const { text, values } = withSafeCounting(query, 'sqlite');
          return file.execute(text, Object.fromEntries(values.map((value, index) => [`$${index + 1}`, value])));
        },
      };
    } else {
      const { pool } = database;
      this.#client = { query: (query) => pool.query(withSafeCounting(query, 'postgres')) };
    }
  }

  /**
   * Counts one request of a user of an application.
   * @throws ApiError 429 with `Retry-After` (whole seconds, at least 1) and the headers that identify the limit
   */
  async count({ application, user }: Pick<Caller, 'application' | 'user'>, operation: string): Promise<void> {
    const tier = this.#tiers[application.tier];
    if (tier === undefined) throw new ApiError('InvalidApplicationTier');
    const own = tier.operations[operation];
    const windows = [
      ...(own === undefined ? [] : [[operation, own] as const]),
      ...tier.general.map((window) => ['general', window] as const),
    ];
    for (const [scope, window] of windows) {
      const share = {
        ...window,
        requests: this.#userShare === 0 ? 0 : Math.max(1, Math.floor(window.requests * this.#userShare)),
      };
      const [used, usedByUser] = await Promise.all([
        this.#consume(this.#limiter(scope, window), application.id),
        this.#consume(this.#limiter(`user/${scope}`, share), JSON.stringify([application.id, user.id])),
      ]);
      // Rule of this server: no user can lock out the other users of an application.
      if (used !== undefined && usedByUser !== undefined)
        throw limitExceeded(Math.max(1, Math.ceil(Math.min(used, usedByUser) / 1000)), operation, application);
    }
  }

  close(): void {
    this.#file?.close();
  }

  /** Counts one request. @returns milliseconds until the next window if this one is used up */
  async #consume({ shared, own }: Limiters, key: string): Promise<number | undefined> {
    try {
      await shared.consume(key).catch((error: unknown) => {
        if (error instanceof RateLimiterRes || !this.#cannotWrite(error)) throw error;
        return own.consume(key);
      });
      return undefined;
    } catch (refused) {
      if (refused instanceof RateLimiterRes) return refused.msBeforeNext;
      throw refused;
    }
  }

  /** The separate file of counts may fail alone; without the shared database no request can be answered anyway. */
  #cannotWrite(error: unknown): boolean {
    const outage = outageOf(error);
    return outage === 'noSpace' || (outage === 'unavailable' && this.#file !== undefined);
  }

  #limiter(scope: string, window: { requests: number; seconds: number }): Limiters {
    const name = `${scope}/${window.requests}/${window.seconds}`;
    let limiter = this.#limiters.get(name);
    if (limiter === undefined) {
      const shared = new RateLimiterPostgres({
        storeClient: this.#client,
        storeType: 'pool',
        tableName: 'rate_limit',
        tableCreated: true,
        keyPrefix: name,
        points: window.requests,
        duration: window.seconds,
      });
      limiter = {
        shared,
        own: new RateLimiterMemory({ keyPrefix: name, points: window.requests, duration: window.seconds }),
      };
      this.#limiters.set(name, limiter);
    }
    return limiter;
  }
}

/** The current time in SQL, ms since 1970. PostgreSQL uses its own clock, because those of several servers may differ; SQLite has one server, which passes its time. */
const nowOf = {
  postgres: 'cast(extract(epoch from clock_timestamp()) * 1000 as bigint)',
  sqlite: 'cast($4 as bigint)',
};

/**
 * Replaces the library's counting statement with one that tolerates clock changes: a window that ends later than a window
 * started now was started before a clock was set back, and counts as over. The returned end is relative to this server's
 * time, with which the library compares it. Parameters as the library passes them: key, points, end of a window started
 * now, now.
 */
function countingStatement(now: string): string {
  const length = '(cast($3 as bigint) - cast($4 as bigint))';
  const isOver = `w.expire <= ${now} or w.expire > ${now} + ${length}`;
  return `insert into rate_limit as w (key, points, expire) values ($1, $2, ${now} + ${length})
    on conflict (key) do update set points = case when ${isOver} then excluded.points else w.points + excluded.points end,
      expire = case when ${isOver} then excluded.expire else w.expire end
    returning points, expire - ${now} + cast($4 as bigint) as expire`;
}

/** Replaces the library's counting statement with `countingStatement`; other statements stay unchanged. */
function withSafeCounting(
  { text, values }: { text: string; values: unknown[] },
  engine: keyof typeof nowOf,
): { text: string; values: unknown[] } {
  return { text: /^\s*insert into/i.test(text) ? countingStatement(nowOf[engine]) : text, values };
}

/** Recreates the file if a power failure damaged it: it only contains the counts of the last minutes. */
function openLimits(file: string): Connection {
  for (const attempt of ['first', 'second'] as const) {
    let connection: Connection | undefined;
    try {
      connection = openConnection(file, 'nonDurable');
      connection.execute(
        'create table if not exists rate_limit (key text primary key, points integer not null, expire integer) strict, without rowid',
        [],
      );
      connection.execute('pragma quick_check', []);
      return connection;
    } catch (error) {
      connection?.close();
      if (attempt === 'second') throw error;
      for (const ending of ['', '-wal', '-shm']) rmSync(`${file}${ending}`, { force: true });
    }
  }
  throw new Error('unreachable');
}
