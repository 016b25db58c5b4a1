import {
  CompiledQuery,
  Kysely,
  Transaction,
  type ConnectionProvider,
  type DatabaseConnection,
  type Dialect,
  type TransactionBuilder,
} from 'kysely';
import { isAborted, isLost, isOutdated, isRolledBack, withRetry } from './postgres/pool.ts';
import { collectDeferred } from './deferred.ts';

/**
 * Retries transactions that the database rolled back, and those whose connection was lost before COMMIT was sent. If the
 * connection is lost later, it is unknown whether the transaction was committed, and the error is reported to the caller.
 * Because of the retries, a transaction must have no side effects outside the database.
 *
 * Statements that a transaction issues without waiting for each other are sent together (`Promise.all`), and so is COMMIT with
 * the deferred statements before it: each round trip costs both sides about 0.1 ms of system calls, more than PostgreSQL
 * needs for a statement. The transactions of Kysely wait for the answer to each statement instead.
 */
export class RetryingKysely<Schema> extends Kysely<Schema> {
  readonly #dialect: Dialect;

  constructor(dialect: Dialect) {
    super({ dialect });
    this.#dialect = dialect;
  }

  override transaction(): TransactionBuilder<Schema> {
    const builder = super.transaction();
    builder.execute = async <T>(work: (tx: Transaction<Schema>) => Promise<T>): Promise<T> => {
      const state = { committing: false };
      return withRetry(
        () => this.#once(work, state),
        (error) => isRetryable(error, state.committing),
      );
    };
    return builder;
  }

  async #once<T>(work: (tx: Transaction<Schema>) => Promise<T>, state: { committing: boolean }): Promise<T> {
    state.committing = false;
    const executor = this.getExecutor();
    return executor.provideConnection(async (connection) => {
      const statements = new Statements(connection);
      const dialect = this.#dialect;
      const tx = new Transaction<Schema>({
        config: { dialect },
        dialect,
        // Only for nested transactions, which Kysely refuses.
        driver: dialect.createDriver(),
        executor: executor.withConnectionProvider(statements),
      });
      const deferred = collectDeferred(tx);
      await connection.executeQuery(CompiledQuery.raw('begin'));
      try {
        const result = await work(tx);
        statements.end();
        state.committing = true;
        const commit = connection.executeQuery(CompiledQuery.raw('commit'));
        const failed = (await Promise.allSettled([...deferred, commit])).find(({ status }) => status === 'rejected');
        if (failed !== undefined) throw (failed as PromiseRejectedResult).reason;
        return result;
      } catch (error) {
        statements.end();
        // If this fails too, the connection is not used again, and PostgreSQL rolls back when it closes.
        await connection.executeQuery(CompiledQuery.raw('rollback')).catch(() => undefined);
        throw await causeOf(error, deferred);
      }
    });
  }
}

/** Gives the statements of a transaction its connection, without waiting for earlier ones to be answered. */
class Statements implements ConnectionProvider {
  readonly #connection: DatabaseConnection;
  #ended = false;

  constructor(connection: DatabaseConnection) {
    this.#connection = connection;
  }

  async provideConnection<T>(consumer: (connection: DatabaseConnection) => Promise<T>): Promise<T> {
    // A statement of work that nobody waited for would otherwise run outside of the transaction.
    if (this.#ended) throw new Error('the transaction of this statement has ended');
    return consumer(this.#connection);
  }

  end(): void {
    this.#ended = true;
  }
}

/** After a deferred statement has failed, PostgreSQL refuses all later ones: the first error is the one that counts. */
async function causeOf(error: unknown, deferred: readonly Promise<unknown>[]): Promise<unknown> {
  if (!isAborted(error)) return error;
  const failed = (await Promise.allSettled(deferred)).find(({ status }) => status === 'rejected');
  return failed === undefined ? error : (failed as PromiseRejectedResult).reason;
}

function isRetryable(error: unknown, committing: boolean): boolean {
  if (isRolledBack(error)) return true;
  // A newer server has changed the schema; the retry prepares the statement again.
  return isOutdated(error) || (!committing && isLost(error));
}
