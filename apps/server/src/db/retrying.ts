import { Kysely, type Transaction, type TransactionBuilder } from 'kysely';
import { withRetry, isLost, isOutdated } from './postgres/pool.ts';

/** PostgreSQL: what ends a transaction without any of it done, so that it can begin again: serialization failure, deadlock. */
const rolledBack = new Set(['40001', '40P01']);

/**
 * Queries with transactions that begin again when the database rolled them back, or when the connection was lost before the
 * commit was sent. After that nobody knows whether it was done, and whoever asked is told that it failed. What runs in a
 * transaction must change nothing but the database.
 */
export class RetryingKysely<Schema> extends Kysely<Schema> {
  override transaction(): TransactionBuilder<Schema> {
    const builder = super.transaction();
    builder.execute = async <T>(work: (tx: Transaction<Schema>) => Promise<T>): Promise<T> => {
      let committing = false;
      const once = (): Promise<T> => {
        committing = false;
        return super.transaction().execute(async (tx) => {
          const result = await work(tx);
          committing = true;
          return result;
        });
      };
      return withRetry(once, (error) => mayBeginAgain(error, committing));
    };
    return builder;
  }
}

function mayBeginAgain(error: unknown, committing: boolean): boolean {
  const { code } = error as { code?: string };
  if (code !== undefined && rolledBack.has(code)) return true;
  // A newer server changed the schema; the statement is prepared anew.
  return isOutdated(error) || (!committing && isLost(error));
}
