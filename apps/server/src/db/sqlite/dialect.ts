import { Worker } from 'node:worker_threads';
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
import type { WriterReply, WriterRequest } from './writer.ts';

/** A statement that SQLite refused, with its extended result code. */
export class SqliteError extends Error {
  readonly errcode: number | undefined;
  constructor(message: string, errcode: number | undefined) {
    super(message);
    this.name = 'SqliteError';
    this.errcode = errcode;
  }
}

/**
 * The embedded dialect: plain selects are answered at once by a read-only connection (9 µs a point read), everything else
 * and whole transactions go to the one writer thread, one transaction at a time, `BEGIN IMMEDIATE`.
 */
export function sqliteDialect(file: string): Dialect {
  return {
    createAdapter: () => new SqliteAdapter(),
    createQueryCompiler: () => new SqliteQueryCompiler(),
    createIntrospector: (db) => new SqliteIntrospector(db),
    createDriver: () => new SqliteDriver(file),
  };
}

class SqliteDriver implements Driver {
  readonly #file: string;
  #writer!: Writer;
  #reader!: Connection;

  constructor(file: string) {
    this.#file = file;
  }

  async init(): Promise<void> {
    this.#writer = new Writer(this.#file);
    await this.#writer.execute('select 1', []); // The writer makes the file before the reader looks for it.
    this.#reader = openConnection(this.#file, 'reader');
  }

  async acquireConnection(): Promise<DatabaseConnection> {
    return new SqliteConnection(this.#writer, this.#reader);
  }

  async beginTransaction(connection: DatabaseConnection): Promise<void> {
    await (connection as SqliteConnection).begin();
  }

  async commitTransaction(connection: DatabaseConnection): Promise<void> {
    await (connection as SqliteConnection).end('commit');
  }

  async rollbackTransaction(connection: DatabaseConnection): Promise<void> {
    await (connection as SqliteConnection).end('rollback');
  }

  async releaseConnection(): Promise<void> {}

  async destroy(): Promise<void> {
    this.#reader.close();
    await this.#writer.close();
  }
}

class SqliteConnection implements DatabaseConnection {
  readonly #writer: Writer;
  readonly #reader: Connection;
  #release: (() => void) | undefined;

  constructor(writer: Writer, reader: Connection) {
    this.#writer = writer;
    this.#reader = reader;
  }

  async begin(): Promise<void> {
    this.#release = await this.#writer.turn();
    try {
      await this.#writer.execute('begin immediate', []);
    } catch (error) {
      this.#finish();
      throw error;
    }
  }

  async end(how: 'commit' | 'rollback'): Promise<void> {
    try {
      await this.#writer.execute(how, []);
    } finally {
      this.#finish();
    }
  }

  async executeQuery<R>(query: CompiledQuery): Promise<QueryResult<R>> {
    if (this.#release !== undefined) return result(await this.#writer.execute(query.sql, query.parameters));
    if (query.query.kind === 'SelectQueryNode') return result(this.#reader.execute(query.sql, query.parameters));
    const release = await this.#writer.turn();
    try {
      return result(await this.#writer.execute(query.sql, query.parameters));
    } finally {
      release();
    }
  }

   
  async *streamQuery<R>(): AsyncIterableIterator<QueryResult<R>> {
    throw new Error('the embedded database reads whole results; page instead');
  }

  #finish(): void {
    this.#release?.();
    this.#release = undefined;
  }
}

function result<R>({ rows, changes }: Execution): QueryResult<R> {
  return { rows: rows as R[], numAffectedRows: BigInt(changes) };
}

/** The writer thread seen from outside: a queue of turns and a question-and-answer channel. */
class Writer {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, { resolve: (value: Execution) => void; reject: (error: Error) => void }>();
  #lastId = 0;
  #tail: Promise<void> = Promise.resolve();

  constructor(file: string) {
    // From the sources this is writer.ts, from the build writer.js: the same ending as this module.
    const ending = import.meta.url.slice(import.meta.url.lastIndexOf('.'));
    this.#worker = new Worker(new URL(`./writer${ending}`, import.meta.url), { workerData: { file } });
    this.#worker.on('message', (reply: WriterReply) => {
      const waiting = this.#waiting.get(reply.id);
      this.#waiting.delete(reply.id);
      if ('error' in reply) waiting?.reject(new SqliteError(reply.error.message, reply.error.errcode));
      else waiting?.resolve(reply);
    });
    const fail = (error: Error): void => {
      for (const { reject } of this.#waiting.values()) reject(error);
      this.#waiting.clear();
    };
    this.#worker.on('error', fail);
    this.#worker.on('exit', () => fail(new Error('the writer thread has ended')));
    this.#worker.unref();
  }

  /** Waits for this caller's turn to write; the returned function ends the turn. First come, first served. */
  async turn(): Promise<() => void> {
    const before = this.#tail;
    let release!: () => void;
    this.#tail = new Promise((resolve) => (release = resolve));
    await before;
    return release;
  }

  execute(sql: string, parameters: readonly unknown[]): Promise<Execution> {
    return new Promise((resolve, reject) => {
      const id = ++this.#lastId;
      this.#waiting.set(id, { resolve, reject });
      // Ref only while an answer is due, so that an idle writer does not keep a process alive.
      if (this.#waiting.size === 1) this.#worker.ref();
      this.#worker.postMessage({ id, sql, parameters } satisfies WriterRequest);
    }).finally(() => {
      if (this.#waiting.size === 0) this.#worker.unref();
    }) as Promise<Execution>;
  }

  async close(): Promise<void> {
    const release = await this.turn();
    const ended = new Promise<void>((resolve) => this.#worker.once('exit', () => resolve()));
    this.#worker.ref();
    this.#worker.postMessage('close');
    await ended;
    release();
  }
}
