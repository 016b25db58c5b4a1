import {
  SqliteAdapter,
  SqliteIntrospector,
  SqliteQueryCompiler,
  type CompiledQuery,
  type DatabaseConnection,
  type Dialect,
  type Driver,
  type QueryResult,
} from 'kysely';
import { openConnection, type Connection, type Execution } from './connection.ts';
import { LostTransactionError } from './errors.ts';
import { KeptRows, type KeptQuery } from './keptRows.ts';
import type { StatementThread } from './statementThread.ts';
import type { Turn, Writer } from './writerQueue.ts';

/**
 * The embedded dialect. A read-only connection executes plain selects synchronously (2.4 µs per point read); everything else and
 * whole transactions are executed one at a time, with `BEGIN IMMEDIATE`, in turns of the writer.
 * @param writer for the same file; closed with the dialect
 */
export function sqliteDialect(file: string, writer: Writer): Dialect {
  return {
    createAdapter: () => new Adapter(),
    createQueryCompiler: () => new SqliteQueryCompiler(),
    createIntrospector: (db) => new SqliteIntrospector(db),
    createDriver: () => new SqliteDriver(file, writer),
  };
}

/**
 * A dialect for reads that may walk many rows: a thread executes them, so that no request waits for them. It writes nothing.
 * @param thread with a reader of the file; closed with the dialect
 */
export function sqliteScanDialect(thread: StatementThread): Dialect {
  return {
    createAdapter: () => new Adapter(),
    createQueryCompiler: () => new SqliteQueryCompiler(),
    createIntrospector: (db) => new SqliteIntrospector(db),
    createDriver: () => new ScanDriver(thread),
  };
}

/** Kysely runs SQLite migrations without a transaction, because drivers may return different connections; this one does not. */
class Adapter extends SqliteAdapter {
  override get supportsTransactionalDdl(): boolean {
    return true;
  }
}

class SqliteDriver implements Driver {
  readonly #file: string;
  readonly #writer: Writer;
  #reader!: Connection;
  #kept!: KeptRows;

  constructor(file: string, writer: Writer) {
    this.#file = file;
    this.#writer = writer;
  }

  async init(): Promise<void> {
    await this.#writer.answers(); // The writer creates the file, which the reader cannot.
    this.#reader = openConnection(this.#file, 'reader');
    this.#kept = new KeptRows(this.#reader, this.#writer);
  }

  async acquireConnection(): Promise<DatabaseConnection> {
    return new SqliteConnection(this.#writer, this.#reader, this.#kept);
  }

  async beginTransaction(connection: DatabaseConnection): Promise<void> {
    await (connection as SqliteConnection).begin();
  }

  async commitTransaction(connection: DatabaseConnection): Promise<void> {
    await (connection as SqliteConnection).commit();
  }

  async rollbackTransaction(connection: DatabaseConnection): Promise<void> {
    await (connection as SqliteConnection).rollback();
  }

  async releaseConnection(): Promise<void> {
    // The reader is shared, and a turn of the writer ends with its transaction.
  }

  async destroy(): Promise<void> {
    this.#reader.close();
    await this.#writer.close();
  }
}

class ScanDriver implements Driver {
  readonly #thread: StatementThread;

  constructor(thread: StatementThread) {
    this.#thread = thread;
  }

  async init(): Promise<void> {
    // The thread starts with the first statement.
  }

  async acquireConnection(): Promise<DatabaseConnection> {
    return {
      executeQuery: async <R>({ sql, parameters }: CompiledQuery): Promise<QueryResult<R>> =>
        result(await this.#thread.post({ kind: 'alone', sql, parameters })),
      streamQuery: streamNothing,
    };
  }

  async beginTransaction(): Promise<void> {
    throw new Error('scans have no transactions');
  }

  async commitTransaction(): Promise<void> {
    throw new Error('scans have no transactions');
  }

  async rollbackTransaction(): Promise<void> {
    throw new Error('scans have no transactions');
  }

  async releaseConnection(): Promise<void> {
    // The thread is shared.
  }

  async destroy(): Promise<void> {
    await this.#thread.close();
  }
}

class SqliteConnection implements DatabaseConnection {
  readonly #writer: Writer;
  readonly #reader: Connection;
  readonly #kept: KeptRows;
  /** The writer turn of the open transaction. It ends with the transaction, because the connection is shared. */
  #turn: Turn | undefined;

  constructor(writer: Writer, reader: Connection, kept: KeptRows) {
    this.#writer = writer;
    this.#reader = reader;
    this.#kept = kept;
  }

  async begin(): Promise<void> {
    const turn = await this.#writer.turn();
    try {
      await turn.ask({ kind: 'begin' });
      this.#turn = turn;
    } catch (error) {
      turn.end();
      throw error;
    }
  }

  async commit(): Promise<void> {
    const turn = this.#turn;
    if (turn === undefined) throw new LostTransactionError();
    try {
      await turn.ask({ kind: 'commit' });
      this.#turn = undefined;
    } finally {
      // What cannot be committed is rolled back at once. A turn that has ended rejects further statements, so that none of them runs
      // outside the transaction; Kysely calls `rollback` after a failed commit.
      turn.end();
    }
    // The next transaction runs while this one is synced together with others.
    await this.#writer.durable('main');
  }

  async rollback(): Promise<void> {
    const turn = this.#turn;
    this.#turn = undefined;
    if (turn === undefined || turn.ended) return;
    try {
      await turn.ask({ kind: 'rollback' });
    } finally {
      turn.end();
    }
  }

  async executeQuery<R>(query: CompiledQuery): Promise<QueryResult<R>> {
    if (this.#turn !== undefined)
      return result(await this.#turn.ask({ kind: 'within', sql: query.sql, parameters: query.parameters }));
    if (query.query.kind === 'SelectQueryNode') {
      const reader = (query as KeptQuery).kept === true ? this.#kept : this.#reader;
      return result(reader.execute(query.sql, query.parameters));
    }
    return result(await this.#writer.alone('alone', query.sql, query.parameters));
  }

  readonly streamQuery = streamNothing;
}

async function* streamNothing<R>(): AsyncIterableIterator<QueryResult<R>> {
  throw new Error('the embedded database reads whole results; page instead');
}

function result<R>({ rows, changes }: Execution): QueryResult<R> {
  return { rows: rows as R[], numAffectedRows: BigInt(changes) };
}
