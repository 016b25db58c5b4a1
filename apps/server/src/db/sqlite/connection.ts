import { DatabaseSync, type SQLInputValue, type StatementSync } from 'node:sqlite';
import { LRUCache } from 'lru-cache';

export interface Execution {
  rows: unknown[];
  changes: number;
}

export interface Connection {
  /** Whether a transaction is open. SQLite ends one by itself after some errors. */
  readonly inTransaction: boolean;
  /** @param parameters by position (`?`), or by name (`$1`) as one object */
  execute(sql: string, parameters: readonly unknown[] | Record<string, unknown>): Execution;
  /** Runs statements without parameters to their ends, and drops their rows. */
  script(sql: string): void;
  /** Ends the open transaction, if there is one. A connection on which even that fails is closed and opened again when it is next used. */
  rollback(): void;
  close(): void;
}

/**
 * Opens one connection to an SQLite file: `writer` durable (WAL, every commit synced), `reader` read-only,
 * `nonDurable` for data that may be lost with the power (rate limits), which then cost no sync at all.
 * Prepared statements are kept, at most 500 of them.
 */
export function openConnection(file: string, use: 'writer' | 'reader' | 'nonDurable'): Connection {
  const statements = new LRUCache<string, { statement: StatementSync; reads: boolean }>({ max: 500 });
  let opened: DatabaseSync | undefined = openFile(file, use);
  const database = (): DatabaseSync => (opened ??= openFile(file, use));
  const close = (): void => {
    statements.clear();
    opened?.close();
    opened = undefined;
  };

  return {
    get inTransaction() {
      return opened?.isTransaction === true;
    },
    execute(sql, parameters) {
      let prepared = statements.get(sql);
      if (prepared === undefined) {
        const statement = database().prepare(sql);
        prepared = { statement, reads: statement.columns().length > 0 };
        statements.set(sql, prepared);
      }
      const values = (Array.isArray(parameters) ? parameters : [parameters]) as SQLInputValue[];
      if (prepared.reads) {
        const rows = prepared.statement.all(...values);
        return { rows, changes: rows.length };
      }
      return { rows: [], changes: Number(prepared.statement.run(...values).changes) };
    },
    script(sql) {
      database().exec(sql);
    },
    rollback() {
      if (opened?.isTransaction !== true) return;
      try {
        opened.exec('rollback');
      } catch {
        // What counts is whether the transaction is still open. Closing a connection ends it in any case.
        if (opened.isTransaction) close();
      }
    },
    close,
  };
}

function openFile(file: string, use: 'writer' | 'reader' | 'nonDurable'): DatabaseSync {
  const database = new DatabaseSync(file, {
    readOnly: use === 'reader',
    timeout: 5000,
    enableForeignKeyConstraints: true,
  });
  try {
    if (use !== 'reader') {
      // Of a new file only, before anything is in it; see freeSpace.ts.
      database.exec('pragma auto_vacuum = incremental');
      database.exec('pragma journal_mode = wal');
      database.exec(`pragma synchronous = ${use === 'writer' ? 'full' : 'off'}`);
    }
    database.exec('pragma cache_size = -65536');
    return database;
  } catch (error) {
    database.close();
    throw error;
  }
}
