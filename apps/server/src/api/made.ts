import type { MadeTable } from '../idempotency/made.ts';
import type { Route } from './route.ts';

type Made = NonNullable<Route['made']>;

/** A new iModel, by its address in `Location`. */
export const madeIModel: Made = {
  table: 'imodel',
  idIn: (_body, { location }) => location?.slice(location.lastIndexOf('/') + 1) ?? '',
};

/** Something new, by its id in the answer. @param property under which it is answered */
export function madeIn(table: MadeTable, property: string): Made {
  return { table, idIn: (body) => (body as Record<string, { id: string }>)[property]?.id ?? '' };
}
