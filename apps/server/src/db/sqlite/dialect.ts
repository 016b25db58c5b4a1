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
import { LostTransactionError, type Turn, type Writer } from './writerQueue.ts';

/**
 * The embedded dialect. A read-only connection executes plain selects synchronously (9 µs per point read); the single writer thread
 * executes everything else and whole transactions, one at a time, with `BEGIN IMMEDIATE`.
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

  constructor(file: string, writer: Writer) {
    this.#file = file;
    this.#writer = writer;
  }

  async init(): Promise<void> {
    await this.#writer.answers(); // The writer makes the file before the reader looks for it.
    this.#reader = openConnection(this.#file, 'reader');
  }

  async acquireConnection(): Promise<DatabaseConnection> {
    return new SqliteConnection(this.#writer, this.#reader);
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

class SqliteConnection implements DatabaseConnection {
  readonly #writer: Writer;
  readonly #reader: Connection;
  /** The writer turn of the open transaction. It ends with the transaction, because the connection is shared. */
  #turn: Turn | undefined;

  constructor(writer: Writer, reader: Connection) {
    this.#writer = writer;
    this.#reader = reader;
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
      // The writer thread rolls back what it cannot commit. A turn that has ended rejects further statements, so that none of them runs
      // outside the transaction; Kysely calls `rollback` after a failed commit.
      turn.end();
    }
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
    if (query.query.kind === 'SelectQueryNode') return result(this.#reader.execute(query.sql, query.parameters));
    return result(await this.#writer.alone('alone', query.sql, query.parameters));
  }

  async *streamQuery<R>(): AsyncIterableIterator<QueryResult<R>> {
    throw new Error('the embedded database reads whole results; page instead');
  }
}

function result<R>({ rows, changes }: Execution): QueryResult<R> {
  return { rows: rows as R[], numAffectedRows: BigInt(changes) };
}
