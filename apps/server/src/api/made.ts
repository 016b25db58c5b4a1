import type { MadeTable } from '../idempotency/made.ts';
import type { Route } from './route.ts';

type Made = NonNullable<Route['made']>;

/** A new iModel. Its id is the last segment of the `Location` header. */
export const madeIModel: Made = {
  table: 'imodel',
  idIn: (_body, { location }) => location?.slice(location.lastIndexOf('/') + 1) ?? '',
};

/** A new object. Its id is in the response body. @param property the property of the body that contains the object */
export function madeIn(table: MadeTable, property: string): Made {
  return { table, idIn: (body) => (body as Record<string, { id: string }>)[property]?.id ?? '' };
}
