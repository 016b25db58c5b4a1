import { AsyncLocalStorage } from 'node:async_hooks';
import type { TransactionBuilder } from 'kysely';
import type { Database, Tx } from './database.ts';
import type { Schema } from './schema.ts';

/** Checks at the start of a transaction whether it is still allowed. @throws if not, which rolls the transaction back */
export type Guard = (tx: Tx) => Promise<void>;

const guards = new AsyncLocalStorage<Guard | undefined>();

/** Runs work and checks the guard at the start of each of its transactions. */
export function withGuard<T>(guard: Guard, work: () => T): T {
  return guards.run(guard, work);
}

/** Runs work without the current guard: for background work that guarded work starts. */
export function unguarded<T>(work: () => T): T {
  return guards.run(undefined, work);
}

/** The guard runs again after a longer wait, milliseconds; shorter waits cost no additional statements. */
const longWaitMs = 100;

/** Waits for a lock within a transaction and checks the guard again after a long wait, because the state may have changed. */
export async function guardedWait<T>(tx: Tx, wait: () => Promise<T>): Promise<T> {
  const began = performance.now();
  const result = await wait();
  if (performance.now() - began > longWaitMs) await guards.getStore()?.(tx);
  return result;
}

/** Makes every transaction of a database check the guard of the current work. */
export function guardTransactions(database: Database): Database {
  const begin = database.db.transaction.bind(database.db);
  database.db.transaction = (): TransactionBuilder<Schema> => {
    const builder = begin();
    const execute = builder.execute.bind(builder);
    builder.execute = async <T>(work: (tx: Tx) => Promise<T>): Promise<T> => {
      const guard = guards.getStore();
      if (guard === undefined) return execute(work);
      return execute(async (tx) => {
        if (database.engine === 'sqlite') {
          await guard(tx);
          return work(tx);
        }
        // PostgreSQL answers the reads of the guard and the first statement of the work in one round trip. Whatever the work
        // has done is rolled back if the guard refuses.
        const [permitted, done] = await Promise.allSettled([guard(tx), work(tx)]);
        if (permitted.status === 'rejected') throw permitted.reason;
        if (done.status === 'rejected') throw done.reason;
        return done.value;
      });
    };
    return builder;
  };
  return database;
}
