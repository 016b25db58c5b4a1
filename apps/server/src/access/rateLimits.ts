import { rmSync } from 'node:fs';
import path from 'node:path';
import { RateLimiterMemory, RateLimiterPostgres, RateLimiterRes } from 'rate-limiter-flexible';
import { BoundedCache } from '../boundedCache.ts';
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
 * in the database, so that all servers of an installation share them; a server takes points from them in chunks (`Window`).
 * They need not survive a power failure: an unlogged table on PostgreSQL, a separate unsynced file on SQLite. The library's
 * statements for PostgreSQL run on SQLite unchanged. While the counts cannot be written, for example on a full disk, each
 * server counts in memory, so that reads remain possible.
 */
export class RateLimits {
  readonly #tiers: Config['tiers'];
  readonly #userShare: number;
  /** The windows of an operation, by tier and operation: each with the share that a user has of it. */
  readonly #windows = new Map<string, readonly Windows[]>();
  readonly #byName = new Map<string, Window>();
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
   * @returns a promise if points have to be taken from the shared counts, which most requests need not wait for
   * @throws ApiError 429 with `Retry-After` (whole seconds, at least 1) and the headers that identify the limit
   */
  count(caller: Pick<Caller, 'application' | 'user'>, operation: string): Promise<void> | undefined {
    const { application, user } = caller;
    const userKey = `${application.id.length}/${application.id}/${user.id}`;
    const windows = this.#windowsOf(application.tier, operation);
    for (let n = 0; n < windows.length; n++) {
      const { all, ofUser } = windows[n] as Windows;
      const used = all.take(application.id);
      const usedByUser = ofUser.take(userKey);
      // A point that is held in memory needs no wait: most requests take two of those.
      if (typeof used === 'object' || typeof usedByUser === 'object')
        return this.#countOn({ used, usedByUser }, windows.slice(n + 1), { application, userKey, operation });
      refuseIfUsed(used, usedByUser, application, operation);
    }
    return undefined;
  }

  async #countOn(
    first: { used: Taken; usedByUser: Taken },
    others: readonly Windows[],
    { application, userKey, operation }: { application: Caller['application']; userKey: string; operation: string },
  ): Promise<void> {
    refuseIfUsed(await first.used, await first.usedByUser, application, operation);
    for (const { all, ofUser } of others) {
      const [used, usedByUser] = [all.take(application.id), ofUser.take(userKey)];
      refuseIfUsed(await used, await usedByUser, application, operation);
    }
  }

  close(): void {
    this.#file?.close();
  }

  #windowsOf(tierName: string, operation: string): readonly Windows[] {
    const key = `${tierName}/${operation}`;
    let windows = this.#windows.get(key);
    if (windows === undefined) {
      const tier = this.#tiers[tierName];
      if (tier === undefined) throw new ApiError('InvalidApplicationTier');
      const own = tier.operations[operation];
      windows = [
        ...(own === undefined ? [] : [[operation, own] as const]),
        ...tier.general.map((window) => ['general', window] as const),
      ].map(([scope, limit]) => ({
        all: this.#window(scope, limit, leaseShares.application),
        ofUser: this.#window(
          `user/${scope}`,
          {
            seconds: limit.seconds,
            requests: this.#userShare === 0 ? 0 : Math.max(1, Math.floor(limit.requests * this.#userShare)),
          },
          leaseShares.user,
        ),
      }));
      this.#windows.set(key, windows);
    }
    return windows;
  }

  /** Operations of a tier with equal limits share a window, as they share its counts. */
  #window(scope: string, { requests, seconds }: { requests: number; seconds: number }, leaseShare: number): Window {
    const name = `${scope}/${requests}/${seconds}`;
    let window = this.#byName.get(name);
    if (window === undefined) {
      const shared = new RateLimiterPostgres({
        storeClient: this.#client,
        storeType: 'pool',
        tableName: 'rate_limit',
        tableCreated: true,
        keyPrefix: name,
        points: requests,
        duration: seconds,
      });
      const own = new RateLimiterMemory({ keyPrefix: name, points: requests, duration: seconds });
      window = new Window(requests, leaseShare, shared, own, (error) => this.#cannotWrite(error));
      this.#byName.set(name, window);
    }
    return window;
  }

  /** The separate file of counts may fail alone; without the shared database no request can be answered anyway. */
  #cannotWrite(error: unknown): boolean {
    const outage = outageOf(error);
    return outage === 'noSpace' || (outage === 'unavailable' && this.#file !== undefined);
  }
}

/** A limit for all users of an application together, and for each of them. */
interface Windows {
  all: Window;
  ofUser: Window;
}

/** Milliseconds until the next window if this one is used up; a promise if that has to be read. */
type Taken = Promise<number | undefined> | number | undefined;

/** Rule of this server: no user can lock out the other users of an application. @throws ApiError if both limits are used up */
function refuseIfUsed(
  used: number | undefined,
  usedByUser: number | undefined,
  application: Caller['application'],
  operation: string,
): void {
  if (used !== undefined && usedByUser !== undefined)
    throw limitExceeded(Math.max(1, Math.ceil(Math.min(used, usedByUser) / 1000)), operation, application);
}

/** Points of a window that this server has taken from the shared counts and may spend until the window ends. */
interface Lease {
  points: number;
  /** The window is used up: nothing can be taken until it ends. */
  exhausted: boolean;
  /** End of the window, on the monotonic clock. */
  endsAt: number;
  /** The request for the next points, which all waiting requests share. */
  pending: Promise<void> | undefined;
}

/**
 * Points to take at a time, as a share of the window: so many may be left unused on each server when the window ends. The share of a
 * user matters only when the window of the application is used up, so it need not be as exact.
 */
const leaseShares = { application: 0.02, user: 0.1 };
const largestLease = 200;
/** Number of applications and users whose leases are held. Losing a lease wastes its points, and exceeds no limit. */
const heldLeases = 20_000;

/**
 * One window of requests, counted for each key. A window of fewer than 100 requests is counted in the database exactly, request
 * by request; of a larger one, the server takes 2 % at a time, at most 200 points, and spends them in memory. The sum over all
 * servers never exceeds the limit, because every point is taken from the shared count once.
 */
class Window {
  readonly #requests: number;
  readonly #shared: RateLimiterPostgres;
  readonly #own: RateLimiterMemory;
  readonly #cannotWrite: (error: unknown) => boolean;
  readonly #chunk: number;
  readonly #leases = new BoundedCache<string, Lease>(heldLeases);

  /** @param leaseShare part of the window to take at a time */
  constructor(
    requests: number,
    leaseShare: number,
    shared: RateLimiterPostgres,
    own: RateLimiterMemory,
    cannotWrite: (error: unknown) => boolean,
  ) {
    this.#requests = requests;
    this.#shared = shared;
    this.#own = own;
    this.#cannotWrite = cannotWrite;
    this.#chunk = Math.max(1, Math.min(largestLease, Math.floor(requests * leaseShare)));
  }

  /** Takes one point. @returns milliseconds until the next window if this one is used up; a promise if that is to be read */
  take(key: string): Taken {
    if (this.#requests === 0) return Infinity;
    if (this.#chunk === 1) return this.#takeOne(key);
    const lease = this.#leases.get(key);
    if (lease === undefined || lease.endsAt <= performance.now()) return this.#takeLeased(key);
    if (lease.points > 0) {
      lease.points--;
      return undefined;
    }
    return lease.exhausted ? lease.endsAt - performance.now() : this.#takeLeased(key);
  }

  async #takeLeased(key: string): Promise<number | undefined> {
    let lease = this.#leases.get(key);
    if (lease === undefined) {
      lease = { points: 0, exhausted: false, endsAt: 0, pending: undefined };
      this.#leases.set(key, lease);
    }
    const current = lease;
    try {
      for (;;) {
        const isOver = current.endsAt <= performance.now();
        if (!isOver && current.points > 0) {
          current.points--;
          return undefined;
        }
        if (!isOver && current.exhausted) return current.endsAt - performance.now();
        current.pending ??= this.#renew(key, current).finally(() => (current.pending = undefined));
        await current.pending;
      }
    } catch (error) {
      return this.#takeInMemory(key, error);
    }
  }

  async #renew(key: string, lease: Lease): Promise<void> {
    const before = performance.now();
    const { consumedPoints, msBeforeNext } = await this.#consume(key, this.#chunk);
    const granted = Math.min(this.#chunk, this.#requests - (consumedPoints - this.#chunk));
    lease.points = Math.max(0, granted);
    lease.exhausted = granted < this.#chunk;
    // From the time before the request, so that the lease ends no later than the window.
    lease.endsAt = before + msBeforeNext;
  }

  async #takeOne(key: string): Promise<number | undefined> {
    try {
      const { consumedPoints, msBeforeNext } = await this.#consume(key, 1);
      return consumedPoints > this.#requests ? msBeforeNext : undefined;
    } catch (error) {
      return this.#takeInMemory(key, error);
    }
  }

  async #takeInMemory(key: string, error: unknown): Promise<number | undefined> {
    if (!this.#cannotWrite(error)) throw error;
    const { consumedPoints, msBeforeNext } = await this.#own.consume(key).catch(resultOfRefusal);
    return consumedPoints > this.#requests ? msBeforeNext : undefined;
  }

  #consume(key: string, points: number): Promise<RateLimiterRes> {
    return this.#shared.consume(key, points).catch(resultOfRefusal);
  }
}

/** The library rejects with its result if the limit is exceeded. */
function resultOfRefusal(refused: unknown): RateLimiterRes {
  if (refused instanceof RateLimiterRes) return refused;
  throw refused;
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
