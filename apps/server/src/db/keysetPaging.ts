import { sql, type RawBuilder, type SelectQueryBuilder } from 'kysely';
import type { Database, Db } from './database.ts';
import type { Schema } from './schema.ts';

/** Maximum bytes of large columns on one page. Reading and serializing 4 MiB occupies the server's main thread for about 30 ms. */
export const pageBytes = 4 * 2 ** 20;

/** Maximum `$skip` that is walked on the main thread: SQLite skips 1,000 rows in about 0.2 ms. */
const skippedAtOnce = 1000;

/** One column that a list is ordered by. */
export interface SortKey {
  column: string;
  type: 'text' | 'number';
  descending: boolean;
}

/** A place between two items: the sort values of the item beside it, and the direction to go from there. */
export interface Cursor {
  values: (string | number)[];
  backward: boolean;
}

/** What is to be read: a page of `top` items from a cursor or after `skip` items. */
export interface PageRequest {
  keys: readonly SortKey[];
  top: number;
  skip: number | undefined;
  cursor: Cursor | undefined;
}

/** A neighbouring page: where it begins, and how many items it holds. */
export type PagePosition = { top: number } & ({ skip: number } | { cursor: Cursor; keys: readonly SortKey[] });

/** One page of a list, and its neighbours where there are any. */
export interface Page<Row> {
  items: Row[];
  next: PagePosition | undefined;
  prev: PagePosition | undefined;
}

/**
 * Reads one page. Pages are addressed by the sort values of the item at their edge instead of by an offset, so that they neither
 * skip nor repeat items while rows are inserted and deleted. Only a request with `$skip` counts rows.
 * @param large columns whose values may be large: the page ends where their sizes exceed the limit, which is checked before reading them
 */
export async function readPage<DB, TB extends keyof DB, Row extends object>(
  query: SelectQueryBuilder<DB, TB, Row>,
  request: PageRequest,
  large: readonly string[] = [],
): Promise<Page<Row>> {
  const { keys, top, cursor, skip } = request;
  const backward = cursor?.backward ?? false;
  let ordered = query;
  for (const key of keys) ordered = ordered.orderBy(sql.ref(key.column), key.descending !== backward ? 'desc' : 'asc');
  if (skip !== undefined) ordered = ordered.offset(skip);
  const ranges = cursor === undefined ? [] : rangesBeyond(keys, cursor);
  const sizes =
    large.length === 0
      ? undefined
      : ((await readRanges(ordered.clearSelect().select(bytesOf(large)), ranges, top)) as { bytes: number }[]).map(
          ({ bytes }) => bytes,
        );
  const fitting = sizes === undefined ? top : itemsThatFit(sizes);
  const rows = await readRanges(ordered, ranges, fitting + 1);
  return pageOf(rows, request, valueIn, fitting);
}

function valueIn(row: object, { column }: SortKey): string | number {
  return (row as Record<string, string | number>)[column.replace(/^.*\./, '')] as string | number;
}

/** Some of the rows of a page: a query without an order, which an index gives in the order of the page. */
export interface PageSource {
  query: SelectQueryBuilder<Schema, keyof Schema, object>;
  /** Column with the primary key of the row of the page. */
  id: string;
  /** Columns that hold what the columns of the page's order hold, where they have other names. */
  columns?: Readonly<Record<string, string>>;
}

/** The rows of a query that meet a condition. */
export function sourceWhere<DB, TB extends keyof DB, Row>(
  query: SelectQueryBuilder<DB, TB, Row>,
  condition: RawBuilder<boolean>,
  id: string,
): PageSource {
  return { query: query.where(condition) as unknown as PageSource['query'], id };
}

/**
 * Reads one page of the rows of several sources. Each source is read in the order of the page and no further than the page; the union
 * of these rows, of which there are only so many, is sorted. One condition with OR would sort all rows of all sources for each page.
 * @param query without conditions
 * @param key the primary key, in which the sources may overlap
 */
export async function readUnionPage<DB, TB extends keyof DB, Row extends object>(
  query: SelectQueryBuilder<DB, TB, Row>,
  sources: readonly PageSource[],
  key: string,
  request: PageRequest,
): Promise<Page<Row>> {
  const { keys, top, cursor, skip = 0 } = request;
  const backward = cursor?.backward ?? false;
  const inOrder = <D, T extends keyof D, R>(rows: SelectQueryBuilder<D, T, R>, by: readonly SortKey[]) => {
    let ordered = rows;
    for (const { column, descending } of by)
      ordered = ordered.orderBy(sql.ref(column), descending !== backward ? 'desc' : 'asc');
    return ordered;
  };
  const parts = sources.map(({ query: rows, id, columns = {} }) => {
    const by = keys.map((each) => ({ ...each, column: columns[each.column] ?? each.column }));
    const selected = [sql`${sql.ref(id)}`.as('id'), ...by.map(({ column }, n) => sql.ref(column).as(`key_${n}`))];
    return {
      // What is distinct must be selected with the columns of the order, or PostgreSQL refuses the statement.
      rows: inOrder(rows, by).clearSelect().select(selected),
      ranges: cursor === undefined ? [sql<boolean>`1 = 1`] : rangesBeyond(by, cursor),
    };
  });
  const rows: Row[] = [];
  for (let range = 0; range < (parts[0]?.ranges.length ?? 0) && rows.length <= top; range++) {
    const missing = top + 1 - rows.length;
    const ids = parts.map(({ rows: source, ranges }) => {
      const first = source.where(ranges[range] as RawBuilder<boolean>).limit(skip + missing);
      return sql`select id from (${first}) as source`;
    });
    const page = query.where(sql<boolean>`${sql.ref(key)} in (${sql.join(ids, sql` union `)})`);
    rows.push(...(await inOrder(page, keys).limit(missing).offset(skip).execute()));
  }
  return pageOf(rows, request, valueIn);
}

/** Total bytes of some columns of a row. Neither database reads the values themselves for it. */
export function bytesOf(columns: readonly string[]) {
  return sql<number>`${sql.join(
    columns.map((column) => sql`coalesce(octet_length(${sql.ref(column)}), 0)`),
    sql` + `,
  )}`.as('bytes');
}

/** How many items of these sizes fit on a page: at least one, so that paging always makes progress. */
export function itemsThatFit(sizes: readonly number[]): number {
  let bytes = 0;
  const beyond = sizes.findIndex((size, n) => (bytes += size) > pageBytes && n > 0);
  return beyond === -1 ? Math.max(1, sizes.length) : beyond;
}

/** Builds a page from up to `fitting + 1` rows read in the cursor's direction. @param fitting number of items on the page, where it is smaller than requested */
export function pageOf<Row>(
  rows: readonly Row[],
  { keys, top, cursor, skip }: PageRequest,
  valueOf: (row: Row, key: SortKey) => string | number,
  fitting = top,
): Page<Row> {
  const more = rows.length > fitting;
  const items = rows.slice(0, fitting);
  if (skip !== undefined) {
    return {
      items,
      next: more ? { skip: skip + items.length, top } : undefined,
      prev: skip > 0 ? { skip: Math.max(0, skip - top), top } : undefined,
    };
  }
  const backward = cursor?.backward ?? false;
  if (backward) items.reverse();
  const first = items[0];
  const last = items.at(-1);
  const at = (row: Row, back: boolean): PagePosition => ({
    cursor: { values: keys.map((key) => valueOf(row, key)), backward: back },
    keys,
    top,
  });
  const hasNext = backward ? true : more;
  const hasPrev = backward ? more : cursor !== undefined;
  return {
    items,
    next: hasNext && last !== undefined ? at(last, false) : undefined,
    prev: hasPrev && first !== undefined ? at(first, true) : undefined,
  };
}

/**
 * Where to read a page: a page that walks many rows is read on a connection for scans, so that no other request waits for it.
 * @param walks whether a condition of the list has no index, so that the page may walk rows that are not on it
 */
export function pageReader({ db, scans }: Pick<Database, 'db' | 'scans'>, { skip }: PageRequest, walks = false): Db {
  return walks || (skip ?? 0) > skippedAtOnce ? scans : db;
}

/** The first `limit` rows of consecutive ranges of an ordered query. No ranges: of the whole query. */
async function readRanges<DB, TB extends keyof DB, Row>(
  ordered: SelectQueryBuilder<DB, TB, Row>,
  ranges: readonly RawBuilder<boolean>[],
  limit: number,
): Promise<Row[]> {
  if (ranges.length === 0) return ordered.limit(limit).execute();
  const rows: Row[] = [];
  for (const range of ranges) {
    rows.push(
      ...(await ordered
        .where(range)
        .limit(limit - rows.length)
        .execute()),
    );
    if (rows.length === limit) break;
  }
  return rows;
}

/**
 * The rows beyond a cursor as consecutive ranges, each of which is one range of an index in the order of the keys. Keys of one
 * direction make one range, with a row value: `(a, b) > (x, y)`. An equivalent condition with OR is not used as a range of an index, so
 * the cost of a page would grow with its position (14.2 instead of 0.62 ms at 100,000 rows). Keys of several directions have no such
 * value and make one range for each change of direction: first the rows that differ in the last keys only.
 */
function rangesBeyond(keys: readonly SortKey[], cursor: Cursor): RawBuilder<boolean>[] {
  const ranges: RawBuilder<boolean>[] = [];
  for (let end = keys.length; end > 0;) {
    const { descending } = keys[end - 1] as SortKey;
    let start = end - 1;
    while (start > 0 && keys[start - 1]?.descending === descending) start--;
    const past = descending !== cursor.backward ? sql`<` : sql`>`;
    const columns = (from: number, to: number) => keys.slice(from, to).map(({ column }) => sql.ref(column));
    const equal = columns(0, start).map((column, at) => sql`${column} = ${cursor.values[at]}`);
    const beyond = sql`(${sql.join(columns(start, end))}) ${past} (${sql.join(cursor.values.slice(start, end))})`;
    ranges.push(sql<boolean>`${sql.join([...equal, beyond], sql` and `)}`);
    end = start;
  }
  return ranges;
}
