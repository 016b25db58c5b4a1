import type { Socket } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import type { PostgresCursor, PostgresPool, PostgresPoolClient, PostgresQueryResult } from 'kysely';
import type pg from 'pg';
import { ConnectionLimits } from './connectionLimits.ts';
import { UnavailableError } from '../../outages.ts';

/** Maximum attempts for a connection, a read or a transaction. The delays between them add up to about 1 s, about as long as a restart of the database. */
const attempts = 6;
const firstWaitMs = 30;
/** Average delay before requesting a connection again after PostgreSQL had none available, milliseconds. */
const crowdedPauseMs = 100;
/** Maximum time for closing connections gracefully, milliseconds. */
const endMs = 1000;
/** Maximum number of prepared statements per connection. Lists of ids produce many variants; further statements are sent unprepared. */
const mostStatements = 300;

/** Error codes of a lost connection: closed by an administrator, a crash, a restart or the network. */
const lost = new Set(['57P01', '57P02', '57P03', '08000', '08003', '08006', 'ECONNRESET', 'ECONNREFUSED', 'EPIPE']);
/** Messages of `pg` for a connection that it knows to be closed. */
const lostInWords = /^(Connection terminated|Client has encountered a connection error|Client was closed)/;

/** Thrown if PostgreSQL cannot be reached after all attempts that fit into a request. */
export class UnreachableDatabaseError extends UnavailableError {
  constructor(cause: unknown) {
    super('the database cannot be reached', { cause });
    this.name = 'UnreachableDatabaseError';
  }
}

/** Whether a connection was lost, before or during a statement. */
export function isLost(error: unknown): boolean {
  const { code, message } = error as { code?: string; message?: string };
  return (code !== undefined && lost.has(code)) || lostInWords.test(message ?? '');
}

/** Errors after which PostgreSQL has rolled back a statement or transaction, which can be repeated: serialization failure, deadlock. */
const rolledBack = new Set(['40001', '40P01']);

/** Whether PostgreSQL rolled back a statement or transaction because of others that ran at the same time. */
export function isRolledBack(error: unknown): boolean {
  const { code } = error as { code?: string };
  return code !== undefined && rolledBack.has(code);
}

/** Whether a statement failed because its table has gained a column since it was prepared (`select *`). */
export function isOutdated(error: unknown): boolean {
  const { code, message } = error as { code?: string; message?: string };
  return code === '0A000' && (message ?? '').includes('cached plan must not change result type');
}

/** Whether PostgreSQL refused a statement because an earlier one of its transaction had failed. */
export function isAborted(error: unknown): boolean {
  return (error as { code?: string }).code === '25P02';
}

/** Whether PostgreSQL has no connection available at the moment, because the clients of all servers use them. */
function isCrowded(error: unknown): boolean {
  return (error as { code?: string }).code === '53300';
}

/** Message of `pg` for a statement that timed out. Its connection can no longer be used. */
function isUnanswered(error: unknown): boolean {
  return (error as Error).message === 'Query read timeout';
}

/** Repeats the work, with growing delays, while `mayBeginAgain` accepts its errors, up to `attempts` times. */
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
 * The connection pool of Kysely. It retries failed connection attempts, and reads whose connection was lost. If allowed, PostgreSQL
 * parses and plans each statement once, which gives 1.8 × the reads and 1.3 × the clones per second (docs/performance.md). If a newer
 * server changes the schema while this one runs, statements are prepared again.
 */
export class Pool implements PostgresPool {
  readonly #pool: pg.Pool;
  readonly #prepares: boolean;
  readonly #waitMs: number;
  readonly #limits: ConnectionLimits;
  /** One wrapper per connection, because Kysely identifies connections by object. */
  readonly #clients = new WeakMap<pg.PoolClient, Client>();
  readonly #numbers = new Map<string, number>();
  readonly #open = new Set<pg.PoolClient>();

  /** @param waitMs maximum wait for a connection, milliseconds */
  constructor(pool: pg.Pool, prepares: boolean, waitMs: number) {
    this.#pool = pool;
    this.#prepares = prepares;
    this.#waitMs = waitMs;
    this.#limits = new ConnectionLimits(pool.options.max, waitMs);
    pool.on('connect', (client) => this.#open.add(client));
    pool.on('remove', (client) => this.#open.delete(client));
  }

  /** Executes one statement on a separate connection. */
  async query({ text, values }: { text: string; values: readonly unknown[] }): Promise<{ rows: unknown[] }> {
    const client = await this.connect();
    try {
      return await client.query<unknown>(text, values);
    } finally {
      client.release();
    }
  }

  /**
   * Acquires a connection: waits until the organization, the user and the iModel of the current request are below their limits, then
   * for a free connection of the pool, and for PostgreSQL to accept it.
   * @throws ConnectionLimitError, UnreachableDatabaseError if none is available within the time limit
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

  /** Closes all connections, and destroys those that do not close in time: PostgreSQL may hang, or a request may still use them. */
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

  /** Name of a prepared statement, the same on every connection; undefined if the statement is not prepared. */
  numberOf(text: string): number | undefined {
    const known = this.#numbers.get(text);
    if (known !== undefined || !this.#prepares || this.#numbers.size >= mostStatements) return known;
    this.#numbers.set(text, this.#numbers.size);
    return this.#numbers.size - 1;
  }
}

function socketOf(client: pg.PoolClient): Socket {
  return (client as unknown as { connection: { stream: Socket } }).connection.stream;
}

/** Destroys a connection without notifying PostgreSQL; pending statements fail. */
function cut(client: pg.PoolClient): void {
  socketOf(client).destroy();
}

class Client implements PostgresPoolClient {
  readonly #client: pg.PoolClient;
  readonly #pool: Pool;
  #inTransaction = false;
  /** BEGIN is sent together with the first statement of its transaction, which saves a round trip. */
  #beginsNext = false;
  /** Statements issued in one turn of the event loop are written at once: a write costs up to 0.1 ms. */
  #gathering = false;
  /** A statement was not answered, or a transaction could not be ended: the connection must not be used again. */
  #unusable = false;
  /** Called when the connection is returned to the pool. */
  onRelease: () => void = () => undefined;
  /** Part of each statement name: incrementing it invalidates all prepared statements. */
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
    // A late answer would be taken for the answer to the next statement.
    this.#client.release(this.#unusable);
    this.onRelease();
  }

  async #run<R>(text: string, values: readonly unknown[]): Promise<PostgresQueryResult<R>> {
    if (text === 'begin') {
      this.#inTransaction = true;
      this.#beginsNext = true;
      return noRows('BEGIN');
    }
    const inTransaction = this.#inTransaction;
    if (text === 'commit' || text === 'rollback') {
      // A transaction without statements was never begun, and one whose COMMIT failed has ended.
      if (!inTransaction || this.#beginsNext) {
        this.#beginsNext = false;
        this.#inTransaction = false;
        return noRows('ROLLBACK');
      }
      this.#inTransaction = false;
      return this.#endTransaction<R>(text);
    }
    try {
      return await this.send<R>(text, values);
    } catch (error) {
      if (isOutdated(error)) this.#generation++;
      // A transaction cannot continue on another connection; `RetryingKysely` repeats it as a whole.
      if (inTransaction) throw error;
      if (isOutdated(error)) return this.send(text, values);
      // A single statement that was rolled back had no effect.
      if (isRolledBack(error)) return withRetry(() => this.send<R>(text, values), isRolledBack);
      // A read can be repeated safely. For any other statement, it is unknown whether it took effect.
      if (isLost(error) && /^select /i.test(text)) return withRetry(() => this.#elsewhere<R>(text, values), isLost);
      throw error;
    }
  }

  async #endTransaction<R>(text: 'commit' | 'rollback'): Promise<PostgresQueryResult<R>> {
    try {
      const result = await this.send<R>(text, []);
      // This is how PostgreSQL answers the COMMIT of a transaction in which a statement failed.
      if (text === 'commit' && (result.command as string) === 'ROLLBACK')
        throw new Error('a statement failed, so PostgreSQL rolled the transaction back');
      return result;
    } catch (error) {
      if (text === 'rollback') this.#unusable = true;
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

  /** Sends one statement. Statements without parameters are not prepared: transaction control, and migrations, which run once. */
  async send<R>(text: string, values: readonly unknown[]): Promise<PostgresQueryResult<R>> {
    const number = values.length === 0 ? undefined : this.#pool.numberOf(text);
    const query = {
      ...(number !== undefined && { name: `offshoot-${number}-${this.#generation}` }),
      text,
      values: [...values],
    };
    if (this.#unusable) throw new UnreachableDatabaseError(new Error('an earlier statement was not answered'));
    this.#gather();
    const beginning = this.#beginsNext ? this.#client.query('begin') : undefined;
    this.#beginsNext = false;
    const answer = this.#client.query(query) as unknown as Promise<PostgresQueryResult<R>>;
    try {
      if (beginning === undefined) return await answer;
      const [begun, answered] = await Promise.allSettled([beginning, answer]);
      if (begun.status === 'rejected') {
        // Whatever else was sent may have run outside of a transaction.
        this.#unusable = true;
        throw begun.reason;
      }
      if (answered.status === 'rejected') throw answered.reason;
      return answered.value;
    } catch (error) {
      this.#unusable ||= isUnanswered(error);
      throw error;
    }
  }

  #gather(): void {
    if (this.#gathering) return;
    this.#gathering = true;
    const socket = socketOf(this.#client);
    socket.cork();
    process.nextTick(() => {
      this.#gathering = false;
      socket.uncork();
    });
  }
}

function noRows<R>(command: string): PostgresQueryResult<R> {
  return { command: command as PostgresQueryResult<R>['command'], rowCount: 0, rows: [] };
}
