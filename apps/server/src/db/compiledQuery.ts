import { sql, type Compilable, type CompiledQuery, type QueryResult } from 'kysely';
import type { Db } from './database.ts';
import type { Engine } from './engine.ts';
import type { KeptQuery } from './sqlite/keptRows.ts';

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
 * @param how `kept` for a small result that most requests read: SQLite's is used again until something is committed (`KeptRows`), so
 * nobody may change its rows
 */
export function compiledQuery<P extends object, R>(
  build: (db: Db, values: P) => Compilable<R>,
  how?: 'kept',
): PreparedQuery<P, R> {
  // The adapter belongs to one Kysely instance and its transactions; its dialect decides the text.
  const texts = new WeakMap<object, CompiledQuery<R> & KeptQuery>();
  const placeholders = new Proxy({} as P, { get: (_, name) => new Placeholder(String(name)) });

  const execute = (db: Db, values: P): Promise<QueryResult<R>> => {
    const { adapter } = db.getExecutor();
    let compiled = texts.get(adapter);
    if (compiled === undefined) {
      compiled = { ...build(db, placeholders).compile(), ...(how === 'kept' && { kept: true }) };
      texts.set(adapter, compiled);
    }
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

/** Maximum number of shapes of one query that are kept. Clients use few page sizes and orders, but may try any. */
const mostShapes = 200;

/**
 * Like `compiledQuery`, for a query whose text depends on a few properties of the request, its shape: each shape is compiled once.
 * @param build called once for each shape and database
 */
export function compiledShapes<S extends readonly (string | number | boolean)[], P extends object, R>(
  build: (db: Db, values: P, ...shape: S) => Compilable<R>,
): (...shape: S) => PreparedQuery<P, R> {
  const prepared = new Map<string, PreparedQuery<P, R>>();
  return (...shape) => {
    const key = shape.join(' ');
    let query = prepared.get(key);
    if (query === undefined) {
      if (prepared.size >= mostShapes) prepared.clear();
      prepared.set(key, (query = compiledQuery((db, values: P) => build(db, values, ...shape))));
    }
    return query;
  };
}

/**
 * A limit as a part of the text on SQLite, which prepares a statement again at each execution if its limit is bound (18 µs).
 * PostgreSQL keeps a limited number of prepared statements, so there it is bound.
 * @param literal the limit, as a part of the shape
 * @param bound the limit, as a value
 */
export function limitOf(engine: Engine, literal: number, bound: number) {
  return engine === 'sqlite' ? sql.lit(literal) : sql<number>`${bound}::bigint`;
}

/** The limit as a part of the shape of a query: it determines the text on SQLite only. */
export function limitInShape(engine: Engine, limit: number): number {
  return engine === 'sqlite' ? limit : 0;
}
