import { DatabaseSync, type SQLInputValue, type StatementSync } from 'node:sqlite';
import { LRUCache } from 'lru-cache';

export interface Execution {
  rows: unknown[];
  changes: number;
}

export interface Connection {
  /** @param parameters by position (`?`), or by name (`$1`) as one object */
  execute(sql: string, parameters: readonly unknown[] | Record<string, unknown>): Execution;
  close(): void;
}

/**
 * Opens one connection to an SQLite file: `writer` durable (WAL, every commit synced), `reader` read-only,
 * `forgetful` for data that may be lost with the power (rate limits), which then cost no sync at all.
 * Prepared statements are kept, at most 500 of them.
 */
export function openConnection(file: string, use: 'writer' | 'reader' | 'forgetful'): Connection {
  const database = new DatabaseSync(file, { readOnly: use === 'reader', timeout: 5000, enableForeignKeyConstraints: true });
  if (use !== 'reader') {
    database.exec('pragma journal_mode = wal');
    database.exec(`pragma synchronous = ${use === 'writer' ? 'full' : 'off'}`);
  }
  database.exec('pragma cache_size = -65536');
  const statements = new LRUCache<string, { statement: StatementSync; reads: boolean }>({ max: 500 });

  return {
    execute(sql, parameters) {
      let prepared = statements.get(sql);
      if (prepared === undefined) {
        const statement = database.prepare(sql);
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
    close: () => {
      statements.clear();
      database.close();
    },
  };
}
