import type { Compilable, CompiledQuery, QueryResult } from 'kysely';
import type { Db } from './database.ts';

/** Marks the place of a value in a query that is compiled without the value. */
class Placeholder {
  readonly name: string;
  constructor(name: string) {
    this.name = name;
  }
}

/** A query that is compiled once for each database, and executed with other values each time. */
export interface PreparedQuery<P, R> {
  all(db: Db, values: P): Promise<R[]>;
  first(db: Db, values: P): Promise<R | undefined>;
  /** @returns the number of rows that a statement without a result changed */
  run(db: Db, values: P): Promise<number>;
}

/**
 * Prepares a query whose text does not depend on its values. Building and compiling such a query with Kysely costs 20 to 80 µs
 * (2 cores, Node 24), more than SQLite needs to answer it, and gives the same text each time.
 * @param build called once for each database. What it reads from `values` are placeholders: they may only be passed on as
 * values of the query, and neither be compared nor converted, so values are converted (booleans, JSON) before execution.
 */
export function compiledQuery<P extends object, R>(build: (db: Db, values: P) => Compilable<R>): PreparedQuery<P, R> {
  // The adapter belongs to one Kysely instance and its transactions; its dialect decides the text.
  const texts = new WeakMap<object, CompiledQuery<R>>();
  const placeholders = new Proxy({} as P, { get: (_, name) => new Placeholder(String(name)) });

  const execute = (db: Db, values: P): Promise<QueryResult<R>> => {
    const { adapter } = db.getExecutor();
    let compiled = texts.get(adapter);
    if (compiled === undefined) texts.set(adapter, (compiled = build(db, placeholders).compile()));
    const parameters = compiled.parameters.map((each) =>
      each instanceof Placeholder ? (values as Record<string, unknown>)[each.name] : each,
    );
    return db.executeQuery({ ...compiled, parameters });
  };

  return {
    all: async (db, values) => (await execute(db, values)).rows,
    first: async (db, values) => (await execute(db, values)).rows[0],
    run: async (db, values) => Number((await execute(db, values)).numAffectedRows ?? 0),
  };
}
