import { Type } from '../jsonSchema.ts';
import type { Cursor, PagePosition, PageRequest, SortKey } from '../db/keysetPaging.ts';
import { type ApiError, detail } from '../errors.ts';

/** Paging parameters of every list. Rule of the API: 100 items a page by default, at most 1,000. */
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
/** Default `$top` of lists whose clients do not page: the largest page. */
export const unpagedTop = 1000;

/**
 * Parses `$orderBy` (`prop[ asc|desc]`, separated by commas).
 * @param offered the properties by which the list can be sorted
 * @param tiebreak makes the order total, so that pages neither repeat nor skip an item
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

/** Creates the validation error of the operation from details. */
export type ApiErrorOf = (details: ReturnType<typeof detail.invalidBody>[]) => ApiError;

/**
 * Builds a page request from the query parameters.
 * @throws ApiError 422 for a continuation token of another list or order
 */
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

/** The query parameters that select a page. */
export function parametersOf(position: PagePosition): Record<string, string> {
  const $top = String(position.top);
  if ('skip' in position) return { $skip: String(position.skip), $top };
  return { $continuationToken: encodeToken(position.cursor, position.keys), $top };
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
