import { AsyncLocalStorage } from 'node:async_hooks';
import type { TransactionBuilder } from 'kysely';
import type { Database, Tx } from './database.ts';
import type { Schema } from './schema.ts';

/** Decides at the beginning of a transaction whether it may still be carried out. @throws when it may not, which rolls it back */
export type Guard = (tx: Tx) => Promise<void>;

const guards = new AsyncLocalStorage<Guard | undefined>();

/** Runs work whose transactions each begin with a guard. */
export async function withGuard<T>(guard: Guard, work: () => Promise<T>): Promise<T> {
  return guards.run(guard, work);
}

/** For what guarded work sets off but does not wait for. */
export function unguarded<T>(work: () => T): T {
  return guards.run(undefined, work);
}

/** A wait that takes longer is judged after its end, milliseconds: what is shorter costs no further statements. */
const longWaitMs = 100;

/** Waits for a lock within a transaction, and runs its guard again after a long wait: it decided by what was before that. */
export async function guardedWait<T>(tx: Tx, wait: () => Promise<T>): Promise<T> {
  const began = performance.now();
  const result = await wait();
  if (performance.now() - began > longWaitMs) await guards.getStore()?.(tx);
  return result;
}

/** Makes the transactions of a database heed the guard of the work that they are part of. */
export function guardTransactions(database: Database): Database {
  const begin = database.db.transaction.bind(database.db);
  database.db.transaction = (): TransactionBuilder<Schema> => {
    const builder = begin();
    const execute = builder.execute.bind(builder);
    builder.execute = async <T>(work: (tx: Tx) => Promise<T>): Promise<T> => {
      const guard = guards.getStore();
      if (guard === undefined) return execute(work);
      return execute(async (tx) => {
        await guard(tx);
        return work(tx);
      });
    };
    return builder;
  };
  return database;
}
