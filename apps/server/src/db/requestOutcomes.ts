import { AsyncLocalStorage } from 'node:async_hooks';
import type { TransactionBuilder } from 'kysely';
import type { Database, Tx } from './database.ts';
import { unguarded } from './guards.ts';
import { onNobodysBehalf } from './postgres/connectionLimits.ts';
import type { Schema } from './schema.ts';

/** Keeps what the transactions of one request returned, so that a repetition of the request does none of them twice. */
export interface OutcomeKeeper {
  /** Results of the transactions that earlier runs of this request committed, in order. */
  readonly committed: readonly unknown[];
  /** Writes the results down, in the transaction that returned the last of them. @throws when this run no longer counts */
  keep(tx: Tx, results: readonly unknown[]): Promise<void>;
}

interface Run {
  keeper: OutcomeKeeper;
  results: unknown[];
  /** How many of the results this run has used. */
  used: number;
}

const runs = new AsyncLocalStorage<Run | undefined>();

/**
 * Runs a request handler whose transactions are each committed once, however often the request is repeated: a transaction
 * that an earlier run has committed is not carried out again, its result is returned instead. So whatever a handler makes
 * up for its answer (ids, keys, times) must be in the results of its transactions, which are kept as JSON.
 */
export async function withOutcomes<T>(keeper: OutcomeKeeper, handler: () => Promise<T>): Promise<T> {
  return runs.run({ keeper, results: [...keeper.committed], used: 0 }, handler);
}

/** For what a request sets off but does not wait for, such as jobs: its transactions and connections are not those of the request. */
export function outsideRequest<T>(work: () => T): T {
  return unguarded(() => runs.run(undefined, () => onNobodysBehalf(work)));
}

/** Whether the next transaction of this request has been committed by an earlier run: checks before it would find its effect. */
export function committedBefore(): boolean {
  const run = runs.getStore();
  return run !== undefined && run.used < run.results.length;
}

/** Makes the transactions of a database heed the request that they are part of. */
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
