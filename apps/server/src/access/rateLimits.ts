import { rmSync } from 'node:fs';
import path from 'node:path';
import { RateLimiterMemory, RateLimiterPostgres, RateLimiterRes } from 'rate-limiter-flexible';
import type { Config } from '../config.ts';
import type { Database } from '../db/database.ts';
import { openConnection, type Connection } from '../db/sqlite/connection.ts';
import type { Application, Caller } from '../domain.ts';
import { ApiError } from '../errors.ts';
import { outageOf } from '../outages.ts';

/** What the limiter library asks of its database. */
interface LimitClient {
  query(query: { text: string; values: unknown[] }): Promise<{ rows: unknown[] }>;
}

/** One window: counted by all servers together, and by this one alone where that cannot be written. */
interface Limiters {
  shared: RateLimiterPostgres;
  own: RateLimiterMemory;
}

/** The documented refusal. @param application absent where the sender is not known yet */
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
 * The limits of each application by its tier: the general windows over all requests, and own windows of single
 * operations. When a window is used up, each user of the application still has a share of it. Counts are kept in the database, so that all servers of an installation count together. They may be lost
 * with the power, which spares a disk write on every request: an unlogged table on PostgreSQL, an unsynced file of their
 * own on SQLite. The library's statements for PostgreSQL run on SQLite as they are. Where counts cannot be written, as on a
 * full disk, each server counts for itself, so that reading goes on.
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
      // SQLite takes `$1` for a name.
      this.#client = {
        query: async (query) => {
          const { text, values } = steady(query, 'sqlite');
          return file.execute(text, Object.fromEntries(values.map((value, index) => [`$${index + 1}`, value])));
        },
      };
    } else {
      const { pool } = database;
      this.#client = { query: (query) => pool.query(steady(query, 'postgres')) };
    }
  }

  /**
   * Counts one request of a user of an application.
   * @throws ApiError 429 with `Retry-After` (whole seconds, at least 1) and the headers that tell which limit it was
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
      // Rule of this server: nobody locks out the other users of an application.
      if (used !== undefined && usedByUser !== undefined)
        throw limitExceeded(Math.max(1, Math.ceil(Math.min(used, usedByUser) / 1000)), operation, application);
    }
  }

  close(): void {
    this.#file?.close();
  }

  /** Counts one request. @returns milliseconds until the window begins anew, where it is used up */
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

  /** A file of counts alone may fail; a database that cannot be reached answers no request anyway. */
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

/** `now` of a database that counts, ms since 1970: PostgreSQL's own, because the clocks of several servers may differ; SQLite's one server tells its own. */
const nowOf = {
  postgres: 'cast(extract(epoch from clock_timestamp()) * 1000 as bigint)',
  sqlite: 'cast($4 as bigint)',
};

/**
 * The library's statement that counts, made safe against clocks: a window that ends later than one begun now was begun before
 * a clock was set back, and is over. What is left of a window is told from this server's time, which the library compares
 * with. Parameters as the library gives them: key, points, end of a window begun now, now.
 */
function countingStatement(now: string): string {
  const length = '(cast($3 as bigint) - cast($4 as bigint))';
  const isOver = `w.expire <= ${now} or w.expire > ${now} + ${length}`;
  return `insert into rate_limit as w (key, points, expire) values ($1, $2, ${now} + ${length})
    on conflict (key) do update set points = case when ${isOver} then excluded.points else w.points + excluded.points end,
      expire = case when ${isOver} then excluded.expire else w.expire end
    returning points, expire - ${now} + cast($4 as bigint) as expire`;
}

/** Puts the statement that counts in the place of the library's; others stay. */
function steady(
  { text, values }: { text: string; values: unknown[] },
  engine: keyof typeof nowOf,
): { text: string; values: unknown[] } {
  return { text: /^\s*insert into/i.test(text) ? countingStatement(nowOf[engine]) : text, values };
}

/** A file that a power cut damaged is made anew: it holds nothing but the last minutes' counts. */
function openLimits(file: string): Connection {
  for (const attempt of ['first', 'second'] as const) {
    let connection: Connection | undefined;
    try {
      connection = openConnection(file, 'forgetful');
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
