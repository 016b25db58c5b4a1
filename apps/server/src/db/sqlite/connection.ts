import { DatabaseSync, type SQLInputValue, type StatementSync } from 'node:sqlite';
import { BoundedCache } from '../../boundedCache.ts';

export interface Execution {
  rows: unknown[];
  changes: number;
}

export interface Connection {
  /** Whether a transaction is open. After some errors, SQLite ends it automatically. */
  readonly inTransaction: boolean;
  /** @param parameters an array for positional parameters (`?`), or an object for named ones (`$1`) */
  execute(sql: string, parameters: readonly unknown[] | Record<string, unknown>): Execution;
  /** Executes statements without parameters and discards their rows. */
  script(sql: string): void;
  /** Rolls back the open transaction, if any. If that fails, the connection is closed, and reopened at its next use. */
  rollback(): void;
  close(): void;
}

/**
 * What a connection is for: `writer` commits durably (WAL, every commit synced), `groupWriter` writes its commits to the log without
 * syncing it (the owner syncs it for many commits at once and moves its contents into the database), `reader` is read-only, and
 * `nonDurable` holds data that a power failure may lose, which therefore needs no sync.
 */
export type ConnectionUse = 'writer' | 'groupWriter' | 'reader' | 'nonDurable';

/** How a COMMIT treats the disk. `normal` syncs the log only before its contents are moved into the database. */
const synchronous = { writer: 'full', groupWriter: 'normal', nonDurable: 'off' } as const;

/**
 * Largest page cache of a connection by its use, KiB. Pages that are not in it are usually in the file cache of the system, from which
 * a page takes 2 µs. A thread that writes sorts the rows of a new index in it.
 */
const cacheKiB = { writer: 65_536, groupWriter: 8192, reader: 16_384, nonDurable: 2048 } as const;

/** The open files of this thread. */
const openFiles = new Set<DatabaseSync>();

/** Frees the page caches of all connections of this thread. The next statements fill them again. */
export function freePageCaches(): void {
  for (const database of openFiles) database.exec('pragma shrink_memory');
}

/** Opens one connection to an SQLite file. It caches up to 500 prepared statements. */
export function openConnection(file: string, use: ConnectionUse): Connection {
  const statements = new BoundedCache<string, { statement: StatementSync; columns: readonly string[] }>(500);
  let opened: DatabaseSync | undefined = openFile(file, use);
  const database = (): DatabaseSync => (opened ??= openFile(file, use));
  const close = (): void => {
    statements.clear();
    if (opened !== undefined) openFiles.delete(opened);
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
        // Rows as objects of SQLite's binding have their properties in a hash table, and take twice the time.
        statement.setReturnArrays(true);
        prepared = { statement, columns: columnsOf(statement) };
        statements.set(sql, prepared);
      }
      const values = (Array.isArray(parameters) ? parameters : [parameters]) as SQLInputValue[];
      if (prepared.columns.length > 0) {
        const found = prepared.statement.all(...values) as unknown as unknown[][];
        // `select *` has more columns after a migration.
        if (found[0] !== undefined && found[0].length !== prepared.columns.length)
          prepared.columns = columnsOf(prepared.statement);
        const { columns } = prepared;
        const rows = found.map((row) => rowOf(columns, row));
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
        // Only an open transaction matters here, and closing the connection ends it in any case.
        if (opened.isTransaction) close();
      }
    },
    close,
  };
}

function columnsOf(statement: StatementSync): readonly string[] {
  return statement.columns().map(({ name }) => name);
}

function rowOf(columns: readonly string[], values: readonly unknown[]): Record<string, unknown> {
  const row: Record<string, unknown> = {};
  for (let n = 0; n < columns.length; n++) row[columns[n] as string] = values[n];
  return row;
}

function openFile(file: string, use: ConnectionUse): DatabaseSync {
  const database = new DatabaseSync(file, {
    readOnly: use === 'reader',
    // The group writer runs on the main thread, which must not wait for another process: its owner tries again.
    timeout: use === 'groupWriter' ? 0 : 5000,
    enableForeignKeyConstraints: true,
  });
  try {
    if (use !== 'reader') {
      // Takes effect only on a new, empty file; see freeSpace.ts.
      database.exec('pragma auto_vacuum = incremental');
      database.exec('pragma journal_mode = wal');
      database.exec(`pragma synchronous = ${synchronous[use]}`);
    }
    if (use === 'groupWriter') database.exec('pragma wal_autocheckpoint = 0');
    database.exec(`pragma cache_size = -${cacheKiB[use]}`);
    openFiles.add(database);
    return database;
  } catch (error) {
    database.close();
    throw error;
  }
}
