import { sql, type SelectQueryBuilder } from 'kysely';

/** Maximum bytes of large columns on one page. Reading and serializing 4 MiB occupies the server's main thread for about 30 ms. */
const pageBytes = 4 * 2 ** 20;

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
  if (cursor !== undefined) ordered = ordered.where(beyond(keys, cursor));
  for (const key of keys) ordered = ordered.orderBy(sql.ref(key.column), key.descending !== backward ? 'desc' : 'asc');
  if (skip !== undefined) ordered = ordered.offset(skip);
  const sizes =
    large.length === 0
      ? undefined
      : ((await ordered.limit(top).clearSelect().select(bytesOf(large)).execute()) as { bytes: number }[]).map(
          ({ bytes }) => bytes,
        );
  const fitting = sizes === undefined ? top : itemsThatFit(sizes);
  const rows = await ordered.limit(fitting + 1).execute();
  return pageOf(
    rows,
    request,
    (row, key) => (row as Record<string, string | number>)[key.column.replace(/^.*\./, '')] as string | number,
    fitting,
  );
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

/** Rows beyond the cursor: the first sort value beyond, or equal and the second beyond, and so on. */
function beyond(keys: readonly SortKey[], cursor: Cursor) {
  const alternatives = keys.map((key, index) => {
    const equal = keys.slice(0, index).map((before, at) => sql`${sql.ref(before.column)} = ${cursor.values[at]}`);
    const past = key.descending !== cursor.backward ? sql`<` : sql`>`;
    return sql`(${sql.join([...equal, sql`${sql.ref(key.column)} ${past} ${cursor.values[index]}`], sql` and `)})`;
  });
  return sql<boolean>`(${sql.join(alternatives, sql` or `)})`;
}
