import { sql, type RawBuilder } from 'kysely';
import { isPostgres } from '../db/clock.ts';
import type { Db, Tx } from '../db/database.ts';
import type { IModelTable } from '../db/schema.ts';

/** UTF-16 code units that make one key. A shorter text has none. */
const keyLength = 3;

/**
 * The keys of a text in an iTwin, each once. A text that contains another one has all keys of the other one. The reverse does not
 * hold, and keys may be equal by chance, so whoever finds a text by its keys compares the texts as well.
 */
export function searchKeys(iTwinId: string, text: string): number[] {
  const seed = hash(iTwinId, 0);
  const keys = new Set<number>();
  for (let start = 0; start + keyLength <= text.length; start++)
    keys.add(hash(text.slice(start, start + keyLength), seed));
  return [...keys];
}

/** A hash of 53 bits, which JavaScript and both databases hold exactly. */
function hash(text: string, seed: number): number {
  let high = 0xdeadbeef ^ Math.floor(seed / 2 ** 32);
  let low = 0x41c6ce57 ^ (seed % 2 ** 32);
  for (let n = 0; n < text.length; n++) {
    const unit = text.charCodeAt(n);
    high = Math.imul(high ^ unit, 2654435761);
    low = Math.imul(low ^ unit, 1597334677);
  }
  const mixedHigh = Math.imul(high ^ (high >>> 16), 2246822507) ^ Math.imul(low ^ (low >>> 13), 3266489909);
  const mixedLow = Math.imul(low ^ (low >>> 16), 2246822507) ^ Math.imul(high ^ (high >>> 13), 3266489909);
  return 2 ** 32 * (mixedHigh & 0x1fffff) + (mixedLow >>> 0);
}

/** Deletes the keys of an iModel whose text changes, or that is purged. */
export async function deleteSearchKeys(
  tx: Tx,
  imodel: Pick<IModelTable, 'itwin_id' | 'search_text' | 'search_doc'>,
): Promise<void> {
  if (imodel.search_doc === null) return;
  const keys = searchKeys(imodel.itwin_id, imodel.search_text);
  await sql`delete from search_key where doc = ${imodel.search_doc} and ${isOneOf(tx, 'key', sql`select value from ${valuesOf(tx, keys, 'bigint')}`)}`.execute(
    tx,
  );
}

/** A list of values as a table with the column `value`: one parameter, whatever the number of values. */
export function valuesOf(
  db: Db,
  values: readonly (string | number)[],
  type: 'text' | 'bigint',
): RawBuilder<{ value: string | number }> {
  const list = JSON.stringify(values);
  return isPostgres(db)
    ? sql`(select cast(each.value as ${sql.raw(type)}) as value from json_array_elements_text(cast(${list} as json)) as each (value)) as listed`
    : sql`(select value from json_each(${list})) as listed`;
}

/** Whether a column has one of a few selected values. PostgreSQL would rather join a table than seek, as it cannot tell how few. */
export function isOneOf(db: Db, column: string, values: RawBuilder<unknown>): RawBuilder<boolean> {
  return isPostgres(db)
    ? sql<boolean>`${sql.ref(column)} = any (array(${values}))`
    : sql<boolean>`${sql.ref(column)} in (${values})`;
}
