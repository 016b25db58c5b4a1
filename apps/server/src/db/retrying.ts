import { Kysely, type Transaction, type TransactionBuilder } from 'kysely';
import { isLost, isOutdated, isRolledBack, withRetry } from './postgres/pool.ts';

/**
 * Retries transactions that the database rolled back, and those whose connection was lost before COMMIT was sent. If the
 * connection is lost later, it is unknown whether the transaction was committed, and the error is reported to the caller.
 * Because of the retries, a transaction must have no side effects outside the database.
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
      return withRetry(once, (error) => isRetryable(error, committing));
    };
    return builder;
  }
}

function isRetryable(error: unknown, committing: boolean): boolean {
  if (isRolledBack(error)) return true;
  // A newer server has changed the schema; the retry prepares the statement again.
  return isOutdated(error) || (!committing && isLost(error));
}
