import { sql, type SelectQueryBuilder } from 'kysely';
import { Type } from 'typebox';
import type { ApiError } from '../errors.ts';
import { detail } from '../errors.ts';

/** Paging parameters that every list takes. Rule of the API: 100 a page, at most 1,000. */
export const pagingParameters = {
  $top: Type.Optional(
    Type.Integer({
      minimum: 1,
      maximum: 1000,
      description: 'Items on a page.',
      explain: "'$top' must be a positive integer that does not exceed 1000.",
    }),
  ),
  $skip: Type.Optional(
    Type.Integer({
      minimum: 0,
      maximum: Number.MAX_SAFE_INTEGER,
      description: 'Items to leave out first. Deprecated by the API: use the links, which page by token.',
      explain: "'$skip' must be a non-negative integer.",
    }),
  ),
  $continuationToken: Type.Optional(
    Type.String({ maxLength: 4000, description: 'Opaque place in the list, from the `next` or `prev` link.' }),
  ),
};
export interface PagingQuery {
  $top?: number | undefined;
  $skip?: number | undefined;
  $continuationToken?: string | undefined;
}

const defaultTop = 100;
/** Bytes of large columns that make a page. Reading and writing so many takes the server's one thread some 30 ms. */
const pageBytes = 4 * 2 ** 20;
/** For lists whose clients do not page: everything, up to the largest page. */
export const unpagedTop = 1000;

/** One column that a list is ordered by. */
export interface SortKey {
  column: string;
  type: 'text' | 'number';
  descending: boolean;
}

/** A place between two items: the sort values of the item beside it, and the direction to go from there. */
interface Cursor {
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

/** A page, with the query parameters that lead to its neighbours where there are any. */
export interface Page<Row> {
  items: Row[];
  next: Record<string, string> | undefined;
  prev: Record<string, string> | undefined;
}

/**
 * Reads `$orderBy` (`prop[ asc|desc]`, several joined by commas) over the properties that a list offers.
 * @param tiebreak makes the order total, so that pages neither repeat nor lose an item
 */
export function sortKeys(
  orderBy: string | undefined,
  offered: Record<string, Omit<SortKey, 'descending'>>,
  fallback: string,
  tiebreak: Omit<SortKey, 'descending'>,
  validationError: ApiErrorOf,
): SortKey[] {
  const keys: SortKey[] = [];
  for (const part of (orderBy ?? fallback).split(',')) {
    const [property = '', direction = 'asc', ...rest] = part.trim().split(/\s+/);
    const known = Object.hasOwn(offered, property) ? offered[property] : undefined;
    if (known === undefined || rest.length > 0 || !/^(asc|desc)$/i.test(direction))
      throw validationError([
        detail.invalidValue(
          '$orderBy',
          `'${part.trim().slice(0, 100)}' is not a valid '$orderBy' value. Valid properties: ${Object.keys(offered)
            .map((name) => `'${name}'`)
            .join(', ')}.`,
        ),
      ]);
    if (!keys.some((key) => key.column === known.column))
      keys.push({ ...known, descending: /^desc$/i.test(direction) });
  }
  if (!keys.some((key) => key.column === tiebreak.column))
    keys.push({ ...tiebreak, descending: keys[0]?.descending ?? false });
  return keys;
}

/** Makes the operation's own umbrella error out of details. */
export type ApiErrorOf = (details: ReturnType<typeof detail.invalidBody>[]) => ApiError;

/** Puts a page request together from the parameters. @throws ApiError 422 for a token of another list or order */
export function pageRequest(
  query: PagingQuery,
  keys: readonly SortKey[],
  validationError: ApiErrorOf,
  top = defaultTop,
): PageRequest {
  const token = query.$continuationToken;
  if (token !== undefined && query.$skip !== undefined)
    throw validationError([detail.exclusiveParameters(['$skip', '$continuationToken'])]);
  const cursor = token === undefined || token === '' ? undefined : decodeToken(token, keys);
  if (cursor === 'invalid')
    throw validationError([
      detail.invalidValue(
        '$continuationToken',
        `'${(token ?? '').slice(0, 100)}' is not a valid '$continuationToken' value.`,
      ),
    ]);
  return { keys, top: query.$top ?? top, skip: query.$skip, cursor };
}

/**
 * Reads one page. Pages go by the sort values of the item at their edge, not by counting, so that they stay right while
 * items come and go; only a request with `$skip` counts.
 * @param large columns whose values may be so long that a page is cut by their bytes, before they are read
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

/** Bytes of some columns of a row, which takes neither database a look at their values. */
export function bytesOf(columns: readonly string[]) {
  return sql<number>`${sql.join(
    columns.map((column) => sql`coalesce(octet_length(${sql.ref(column)}), 0)`),
    sql` + `,
  )}`.as('bytes');
}

/** How many items of these sizes a page takes: one at least, so that every list comes to its end. */
export function itemsThatFit(sizes: readonly number[]): number {
  let bytes = 0;
  const beyond = sizes.findIndex((size, n) => (bytes += size) > pageBytes && n > 0);
  return beyond === -1 ? Math.max(1, sizes.length) : beyond;
}

/** Makes the page out of up to `fitting + 1` rows read in the cursor's direction. @param fitting items that the page takes, where that is fewer than asked for */
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
      next: more ? { $skip: String(skip + items.length), $top: String(top) } : undefined,
      prev: skip > 0 ? { $skip: String(Math.max(0, skip - top)), $top: String(top) } : undefined,
    };
  }
  const backward = cursor?.backward ?? false;
  if (backward) items.reverse();
  const first = items[0];
  const last = items.at(-1);
  const at = (row: Row, back: boolean): Record<string, string> => ({
    $continuationToken: encodeToken({ values: keys.map((key) => valueOf(row, key)), backward: back }, keys),
    $top: String(top),
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

function orderSignature(keys: readonly SortKey[]): string {
  return keys.map((key) => `${key.column}${key.descending ? '-' : '+'}`).join('');
}

function encodeToken(cursor: Cursor, keys: readonly SortKey[]): string {
  return Buffer.from(JSON.stringify([orderSignature(keys), cursor.backward ? 1 : 0, ...cursor.values])).toString(
    'base64url',
  );
}

function decodeToken(token: string, keys: readonly SortKey[]): Cursor | 'invalid' {
  try {
    const parts: unknown = JSON.parse(Buffer.from(token, 'base64url').toString('utf8'));
    if (!Array.isArray(parts) || parts.length !== keys.length + 2) return 'invalid';
    const [signature, backward, ...values] = parts as unknown[];
    if (signature !== orderSignature(keys) || (backward !== 0 && backward !== 1)) return 'invalid';
    const fits = keys.every(({ type }, index) => {
      const value = values[index];
      return type === 'number' ? Number.isSafeInteger(value) : typeof value === 'string' && !value.includes('\0');
    });
    return fits ? { values: values as (string | number)[], backward: backward === 1 } : 'invalid';
  } catch {
    return 'invalid';
  }
}
