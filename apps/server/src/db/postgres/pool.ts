import type { Socket } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import type { PostgresCursor, PostgresPool, PostgresPoolClient, PostgresQueryResult } from 'kysely';
import type pg from 'pg';
import { ConnectionLimits } from './connectionLimits.ts';
import { UnavailableError } from '../../outages.ts';

/** Attempts of a connection, a read or a transaction; the waits between them grow to about 1 s in all, the time a database takes to be back. */
const attempts = 6;
const firstWaitMs = 30;
/** Wait before a connection is asked for again that PostgreSQL did not have left, on the average. */
const crowdedPauseMs = 100;
/** How long connections may take to end in an orderly way, milliseconds. */
const endMs = 1000;
/** Statements that one connection keeps at most; lists of ids come in many lengths, and what comes late is sent as it is. */
const mostStatements = 300;

/** The connection is gone: ended by an administrator, a crash or a restart, or broken on the way. */
const lost = new Set(['57P01', '57P02', '57P03', '08000', '08003', '08006', 'ECONNRESET', 'ECONNREFUSED', 'EPIPE']);
/** How `pg` says the same of a connection that it knows to be gone. */
const lostInWords = /^(Connection terminated|Client has encountered a connection error|Client was closed)/;

/** PostgreSQL cannot be reached, after as many attempts as make sense within a request. */
export class UnreachableDatabaseError extends UnavailableError {
  constructor(cause: unknown) {
    super('the database cannot be reached', { cause });
    this.name = 'UnreachableDatabaseError';
  }
}

/** Whether a connection was lost, before or while something was asked. */
export function isLost(error: unknown): boolean {
  const { code, message } = error as { code?: string; message?: string };
  return (code !== undefined && lost.has(code)) || lostInWords.test(message ?? '');
}

/** Whether a statement failed because its table got another column since it was prepared (`select *`). */
export function isOutdated(error: unknown): boolean {
  const { code, message } = error as { code?: string; message?: string };
  return code === '0A000' && (message ?? '').includes('cached plan must not change result type');
}

/** Whether PostgreSQL has no connection left just now: clients of all servers together have taken them. */
function isCrowded(error: unknown): boolean {
  return (error as { code?: string }).code === '53300';
}

/** How `pg` says that a statement was not answered in time. Its connection can no longer be used. */
function isUnanswered(error: unknown): boolean {
  return (error as Error).message === 'Query read timeout';
}

/** Does some work again while `mayBeginAgain` says so of its errors. */
export async function withRetry<T>(work: () => Promise<T>, mayBeginAgain: (error: unknown) => boolean): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      if (attempt >= attempts || !mayBeginAgain(error)) throw error;
      await pause(firstWaitMs * 2 ** (attempt - 1) * (0.5 + Math.random()));
    }
  }
}

/**
 * The connections that Kysely works on. A connection that cannot be had at once is tried again, and so is a read whose
 * connection was lost. Where they may, they let PostgreSQL parse and plan each statement once: 1.8 × the reads and 1.3 × the
 * clones a second (docs/performance.md). A newer server may change the schema while this one runs; what was prepared before is
 * then prepared anew.
 */
export class Pool implements PostgresPool {
  readonly #pool: pg.Pool;
  readonly #prepares: boolean;
  readonly #waitMs: number;
  readonly #limits: ConnectionLimits;
  /** The same for each connection, by which Kysely knows it. */
  readonly #clients = new WeakMap<pg.PoolClient, Client>();
  readonly #numbers = new Map<string, number>();
  readonly #open = new Set<pg.PoolClient>();

  /** @param waitMs longest wait for a connection */
  constructor(pool: pg.Pool, prepares: boolean, waitMs: number) {
    this.#pool = pool;
    this.#prepares = prepares;
    this.#waitMs = waitMs;
    this.#limits = new ConnectionLimits(pool.options.max, waitMs);
    pool.on('connect', (client) => this.#open.add(client));
    pool.on('remove', (client) => this.#open.delete(client));
  }

  /** One statement on a connection of its own. */
  async query({ text, values }: { text: string; values: readonly unknown[] }): Promise<{ rows: unknown[] }> {
    const client = await this.connect();
    try {
      return await client.query<unknown>(text, values);
    } finally {
      client.release();
    }
  }

  /**
   * Waits for a connection: until the organization, the user and the iModel of the present request may have one more, then for one of
   * the pool, one that PostgreSQL has left, or PostgreSQL itself.
   * @throws ConnectionLimitError, UnreachableDatabaseError when there is none within the time
   */
  async connect(): Promise<Client> {
    const leave = await this.#limits.enter();
    try {
      const client = await this.#connect();
      client.onRelease = leave;
      return client;
    } catch (error) {
      leave();
      throw error;
    }
  }

  async #connect(): Promise<Client> {
    const deadline = performance.now() + this.#waitMs;
    const inTime = (): boolean => performance.now() < deadline;
    const take = async (): Promise<pg.PoolClient> => {
      for (;;) {
        try {
          return await withRetry(
            () => this.#pool.connect(),
            (error) => isLost(error) && inTime(),
          );
        } catch (error) {
          if (!isCrowded(error) || !inTime()) throw error;
          await pause(crowdedPauseMs * (0.5 + Math.random()));
        }
      }
    };
    const client = await take().catch((error: unknown) => {
      throw isLost(error) || isCrowded(error) ? new UnreachableDatabaseError(error) : error;
    });
    const known = this.#clients.get(client) ?? new Client(client, this);
    this.#clients.set(client, known);
    return known;
  }

  /** Ends all connections, by force those that do not end in time: their server may be frozen, or a request still has them. */
  async end(): Promise<void> {
    const cutting = setTimeout(() => {
      for (const client of this.#open) cut(client);
    }, endMs);
    try {
      await this.#pool.end();
    } finally {
      clearTimeout(cutting);
    }
  }

  /** What a statement goes by on every connection; undefined when it is not to be prepared. */
  numberOf(text: string): number | undefined {
    const known = this.#numbers.get(text);
    if (known !== undefined || !this.#prepares || this.#numbers.size >= mostStatements) return known;
    this.#numbers.set(text, this.#numbers.size);
    return this.#numbers.size - 1;
  }
}

/** Ends a connection without a word to the server; whatever waits for it fails. */
function cut(client: pg.PoolClient): void {
  (client as unknown as { connection: { stream: Socket } }).connection.stream.destroy();
}

class Client implements PostgresPoolClient {
  readonly #client: pg.PoolClient;
  readonly #pool: Pool;
  #inTransaction = false;
  #unanswered = false;
  /** Hears that whoever had this connection is done with it. */
  onRelease: () => void = () => undefined;
  /** Part of each name: a new one leaves everything behind that was prepared. */
  #generation = 0;

  constructor(client: pg.PoolClient, pool: Pool) {
    this.#client = client;
    this.#pool = pool;
  }

  query<R>(text: string, values: readonly unknown[]): Promise<PostgresQueryResult<R>>;
  query<R>(cursor: PostgresCursor<R>): PostgresCursor<R>;
  query<R>(
    what: string | PostgresCursor<R>,
    values: readonly unknown[] = [],
  ): Promise<PostgresQueryResult<R>> | PostgresCursor<R> {
    if (typeof what !== 'string') throw new Error('this pool has no cursors');
    return this.#run<R>(what, values);
  }

  release(): void {
    // The answer that did not come in time would be taken for that to the next statement.
    this.#client.release(this.#unanswered);
    this.onRelease();
  }

  async #run<R>(text: string, values: readonly unknown[]): Promise<PostgresQueryResult<R>> {
    if (text === 'begin') this.#inTransaction = true;
    if (text === 'commit' || text === 'rollback') this.#inTransaction = false;
    try {
      return await this.send<R>(text, values);
    } catch (error) {
      if (isOutdated(error)) this.#generation++;
      // Within a transaction nothing goes on; it begins again as a whole (`RetryingKysely`).
      if (this.#inTransaction) throw error;
      if (isOutdated(error)) return this.send(text, values);
      // A read changes nothing, whether or not it was done; of anything else nobody knows.
      if (isLost(error) && /^select /i.test(text)) return withRetry(() => this.#elsewhere<R>(text, values), isLost);
      throw error;
    }
  }

  async #elsewhere<R>(text: string, values: readonly unknown[]): Promise<PostgresQueryResult<R>> {
    const other = await this.#pool.connect();
    try {
      return await other.send<R>(text, values);
    } finally {
      other.release();
    }
  }

  /** One statement, prepared if it is to be. Without parameters it is not: the words of transactions, and migrations, which run once. */
  async send<R>(text: string, values: readonly unknown[]): Promise<PostgresQueryResult<R>> {
    const number = values.length === 0 ? undefined : this.#pool.numberOf(text);
    const query = {
      ...(number !== undefined && { name: `offshoot-${number}-${this.#generation}` }),
      text,
      values: [...values],
    };
    if (this.#unanswered) throw new UnreachableDatabaseError(new Error('an earlier statement was not answered'));
    try {
      return (await this.#client.query(query)) as unknown as PostgresQueryResult<R>;
    } catch (error) {
      this.#unanswered = isUnanswered(error);
      throw error;
    }
  }
}
