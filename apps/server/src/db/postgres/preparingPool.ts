import type { PostgresCursor, PostgresPool, PostgresPoolClient, PostgresQueryResult } from 'kysely';
import type pg from 'pg';

/** Statements that one connection keeps at most; lists of ids come in many lengths, and what comes late is sent as it is. */
const mostStatements = 300;
/**
 * A pool whose connections let PostgreSQL parse and plan each statement once: 1.8 × the reads and 1.3 × the clones a second
 * (docs/performance.md). A newer server may change the schema while this one runs; what was prepared before is then prepared
 * anew.
 */
export class PreparingPool implements PostgresPool {
  readonly #pool: pg.Pool;
  /** The same for each connection, by which Kysely knows it. */
  readonly #clients = new WeakMap<pg.PoolClient, PreparingClient>();
  readonly #numbers = new Map<string, number>();

  constructor(pool: pg.Pool) {
    this.#pool = pool;
  }

  async connect(): Promise<PostgresPoolClient> {
    const client = await this.#pool.connect();
    const known = this.#clients.get(client) ?? new PreparingClient(client, (text) => this.#numberOf(text));
    this.#clients.set(client, known);
    return known;
  }

  end(): Promise<void> {
    return this.#pool.end();
  }

  #numberOf(text: string): number | undefined {
    const known = this.#numbers.get(text);
    if (known !== undefined || this.#numbers.size >= mostStatements) return known;
    this.#numbers.set(text, this.#numbers.size);
    return this.#numbers.size - 1;
  }
}

class PreparingClient implements PostgresPoolClient {
  readonly #client: pg.PoolClient;
  readonly #numberOf: (text: string) => number | undefined;
  #inTransaction = false;
  /** Part of each name: a new one leaves everything behind that was prepared. */
  #generation = 0;

  constructor(client: pg.PoolClient, numberOf: (text: string) => number | undefined) {
    this.#client = client;
    this.#numberOf = numberOf;
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
    // Without parameters: the words of transactions, and migrations, which run once.
    const number = values.length === 0 ? undefined : this.#numberOf(text);
    const send = async (): Promise<PostgresQueryResult<R>> =>
      (await this.#client.query({ ...(number !== undefined && { name: `offshoot-${number}-${this.#generation}` }), text, values: [...values] })) as unknown as PostgresQueryResult<R>;
    try {
      return await send();
    } catch (error) {
      if (!isOutdated(error)) throw error;
      this.#generation++;
      // Within a transaction nothing goes on; it begins again as a whole (`RetryingKysely`).
      if (this.#inTransaction) throw error;
      return send();
    }
  }
}

/** Whether a statement failed because its table got another column since it was prepared (`select *`). */
export function isOutdated(error: unknown): boolean {
  const { code, message } = error as { code?: string; message?: string };
  return code === '0A000' && /cached plan must not change result type/.test(message ?? '');
}
