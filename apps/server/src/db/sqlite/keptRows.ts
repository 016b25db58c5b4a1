import type { Connection, Execution } from './connection.ts';
import type { Writer } from './writerQueue.ts';

/** A query whose rows may be used again while the database is unchanged. Nobody may change these rows. */
export interface KeptQuery {
  readonly kept?: true;
}

/** Number of results that are held: a few MiB. */
const mostResults = 2000;
/** How often to look for commits of other processes, which are commands that run beside the server, milliseconds. */
const lookEveryMs = 20;

/**
 * Results of queries that most requests repeat, such as the permissions of a caller: the statement took a sixth of the CPU time of a
 * GET. A commit of this process ends them at once, before it is acknowledged; one of another process within 20 ms.
 */
export class KeptRows {
  readonly #reader: Connection;
  readonly #writer: Pick<Writer, 'turns'>;
  readonly #results = new Map<string, Map<string, Execution>>();
  #count = 0;
  #turns = -1;
  #version: unknown;
  #lookedAt = -Infinity;

  /** @param reader writes nothing, so that every change is one of another connection */
  constructor(reader: Connection, writer: Pick<Writer, 'turns'>) {
    this.#reader = reader;
    this.#writer = writer;
  }

  execute(sql: string, parameters: readonly unknown[]): Execution {
    // Rows are read after these looks, so they are at least as new as the looks say.
    if (this.#hasChanged() || this.#count >= mostResults) {
      this.#results.clear();
      this.#count = 0;
    }
    let ofQuery = this.#results.get(sql);
    if (ofQuery === undefined) this.#results.set(sql, (ofQuery = new Map<string, Execution>()));
    const key = JSON.stringify(parameters);
    let execution = ofQuery.get(key);
    if (execution === undefined) {
      ofQuery.set(key, (execution = this.#reader.execute(sql, parameters)));
      this.#count++;
    }
    return execution;
  }

  #hasChanged(): boolean {
    const { turns } = this.#writer;
    if (turns !== this.#turns) {
      this.#turns = turns;
      return true;
    }
    const now = performance.now();
    if (now - this.#lookedAt < lookEveryMs) return false;
    this.#lookedAt = now;
    // A read transaction of its own, which takes system calls: 2 to 13 µs.
    const [row] = this.#reader.execute('pragma data_version', []).rows as [{ data_version: number }];
    const isOther = row.data_version !== this.#version;
    this.#version = row.data_version;
    return isOther;
  }
}
