import { setTimeout as pause } from 'node:timers/promises';
import { Kysely, type Transaction, type TransactionBuilder } from 'kysely';
import { isOutdated } from './postgres/preparingPool.ts';

/** Attempts of one transaction; the waits between them grow to about 1 s in all, the time a database takes to be back. */
const attempts = 6;
const firstWaitMs = 30;

/** PostgreSQL: what ends a transaction without any of it done, so that it can begin again: serialization failure, deadlock. */
const rolledBack = new Set(['40001', '40P01']);
/** The connection is gone: ended by an administrator, a crash or a restart, or broken on the way. */
const lost = new Set(['57P01', '57P02', '57P03', '08000', '08003', '08006', 'ECONNRESET', 'ECONNREFUSED', 'EPIPE']);

/** How `pg` says the same of a connection that it knows to be gone. */
const lostInWords = /^(Connection terminated|Client has encountered a connection error|Client was closed)/;

/**
 * Queries with transactions that begin again when the database rolled them back, or when the connection was lost before the
 * commit was sent. After that nobody knows whether it was done, and whoever asked is told that it failed. What runs in a
 * transaction must change nothing but the database.
 */
export class RetryingKysely<Schema> extends Kysely<Schema> {
  override transaction(): TransactionBuilder<Schema> {
    const builder = super.transaction();
    builder.execute = async <T>(work: (tx: Transaction<Schema>) => Promise<T>): Promise<T> => {
      for (let attempt = 1; ; attempt++) {
        let committing = false;
        try {
          return await super.transaction().execute(async (tx) => {
            const result = await work(tx);
            committing = true;
            return result;
          });
        } catch (error) {
          if (attempt >= attempts || !mayBeginAgain(error, committing)) throw error;
          await pause(firstWaitMs * 2 ** (attempt - 1) * (0.5 + Math.random()));
        }
      }
    };
    return builder;
  }
}

function mayBeginAgain(error: unknown, committing: boolean): boolean {
  const { code, message } = error as { code?: string; message?: string };
  if (code !== undefined && rolledBack.has(code)) return true;
  // A newer server changed the schema; the statement is prepared anew.
  if (isOutdated(error)) return true;
  return !committing && ((code !== undefined && lost.has(code)) || lostInWords.test(message ?? ''));
}
