import { AsyncLocalStorage } from 'node:async_hooks';
import type { TransactionBuilder } from 'kysely';
import type { Database, Tx } from './database.ts';
import { unguarded } from './guards.ts';
import { onNobodysBehalf } from './postgres/connectionLimits.ts';
import type { Schema } from './schema.ts';

/** Stores the results of the transactions of one request, so that a repetition of the request executes none of them twice. */
export interface OutcomeKeeper {
  /** Results of the transactions that earlier runs of this request committed, in order. */
  readonly committed: readonly unknown[];
  /** Stores the results, in the transaction that returned the last of them. @throws if another run has taken over the request */
  keep(tx: Tx, results: readonly unknown[]): Promise<void>;
}

interface Run {
  keeper: OutcomeKeeper;
  results: unknown[];
  /** Number of stored results that this run has consumed. */
  used: number;
}

const runs = new AsyncLocalStorage<Run | undefined>();

/**
 * Runs a request handler so that each of its transactions is committed once, however often the request is repeated: the
 * stored result replaces a transaction that an earlier run has committed. All values that a handler generates for its
 * response (ids, keys, times) must therefore be part of the results of its transactions, which are stored as JSON.
 */
export async function withOutcomes<T>(keeper: OutcomeKeeper, handler: () => Promise<T>): Promise<T> {
  return runs.run({ keeper, results: [...keeper.committed], used: 0 }, handler);
}

/** Runs work outside the context of the current request: for background work such as jobs, whose transactions and connections do not belong to the request. */
export function outsideRequest<T>(work: () => T): T {
  return unguarded(() => runs.run(undefined, () => onNobodysBehalf(work)));
}

/** Whether an earlier run has committed the next transaction of this request. Checks before that transaction would see its effect. */
export function committedBefore(): boolean {
  const run = runs.getStore();
  return run !== undefined && run.used < run.results.length;
}

/** Whether the results of this request's transactions are stored, so that its writes have to be transactions. */
export function keepsOutcomes(): boolean {
  return runs.getStore() !== undefined;
}

/** Makes every transaction of a database store or reuse its result in the current request. */
export function observeTransactions(database: Database): Database {
  const begin = database.db.transaction.bind(database.db);
  database.db.transaction = (): TransactionBuilder<Schema> => {
    const builder = begin();
    const execute = builder.execute.bind(builder);
    builder.execute = async <T>(work: (tx: Tx) => Promise<T>): Promise<T> => {
      const run = runs.getStore();
      if (run === undefined) return execute(work);
      if (run.used < run.results.length) return run.results[run.used++] as T;
      const result = await execute(async (tx) => {
        const returned = await work(tx);
        await run.keeper.keep(tx, [...run.results, returned ?? null]);
        return returned;
      });
      run.results.push(result);
      run.used = run.results.length;
      return result;
    };
    return builder;
  };
  return database;
}
