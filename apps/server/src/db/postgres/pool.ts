import { setTimeout as pause } from 'node:timers/promises';
import type { PostgresCursor, PostgresPool, PostgresPoolClient, PostgresQueryResult } from 'kysely';
import type pg from 'pg';

/** Attempts of a connection, a read or a transaction; the waits between them grow to about 1 s in all, the time a database takes to be back. */
const attempts = 6;
const firstWaitMs = 30;
/** Statements that one connection keeps at most; lists of ids come in many lengths, and what comes late is sent as it is. */
const mostStatements = 300;

/** The connection is gone: ended by an administrator, a crash or a restart, or broken on the way. */
const lost = new Set(['57P01', '57P02', '57P03', '08000', '08003', '08006', 'ECONNRESET', 'ECONNREFUSED', 'EPIPE']);
/** How `pg` says the same of a connection that it knows to be gone. */
const lostInWords = /^(Connection terminated|Client has encountered a connection error|Client was closed)/;

/** PostgreSQL cannot be reached, after as many attempts as make sense within a request. */
export class UnreachableDatabaseError extends Error {
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
  return code === '0A000' && /cached plan must not change result type/.test(message ?? '');
}

/** Does some work again while `mayBeginAgain` says so of its errors. */
export async function again<T>(work: () => Promise<T>, mayBeginAgain: (error: unknown) => boolean): Promise<T> {
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
  /** The same for each connection, by which Kysely knows it. */
  readonly #clients = new WeakMap<pg.PoolClient, Client>();
  readonly #numbers = new Map<string, number>();

  constructor(pool: pg.Pool, prepares: boolean) {
    this.#pool = pool;
    this.#prepares = prepares;
  }

  /** @throws UnreachableDatabaseError */
  async connect(): Promise<Client> {
    const client = await again(() => this.#pool.connect(), isLost).catch((error: unknown) => {
      throw isLost(error) ? new UnreachableDatabaseError(error) : error;
    });
    const known = this.#clients.get(client) ?? new Client(client, this);
    this.#clients.set(client, known);
    return known;
  }

  end(): Promise<void> {
    return this.#pool.end();
  }

  /** What a statement goes by on every connection; undefined when it is not to be prepared. */
  numberOf(text: string): number | undefined {
    const known = this.#numbers.get(text);
    if (known !== undefined || !this.#prepares || this.#numbers.size >= mostStatements) return known;
    this.#numbers.set(text, this.#numbers.size);
    return this.#numbers.size - 1;
  }
}

class Client implements PostgresPoolClient {
  readonly #client: pg.PoolClient;
  readonly #pool: Pool;
  #inTransaction = false;
  /** Part of each name: a new one leaves everything behind that was prepared. */
  #generation = 0;

  constructor(client: pg.PoolClient, pool: Pool) {
    this.#client = client;
    this.#pool = pool;
  }

  query<R>(text: string, values: readonly unknown[]): Promise<PostgresQueryResult<R>>;
  query<R>(cursor: PostgresCursor<R>): PostgresCursor<R>;
  query<R>(what: string | PostgresCursor<R>, values: readonly unknown[] = []): Promise<PostgresQueryResult<R>> | PostgresCursor<R> {
    if (typeof what !== 'string') throw new Error('this pool has no cursors');
    return this.#run<R>(what, values);
  }

  release(): void {
    this.#client.release();
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
      if (isLost(error) && /^select /i.test(text)) return again(() => this.#elsewhere<R>(text, values), isLost);
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
    const query = { ...(number !== undefined && { name: `offshoot-${number}-${this.#generation}` }), text, values: [...values] };
    return (await this.#client.query(query)) as unknown as PostgresQueryResult<R>;
  }
}
