import { sql } from 'kysely';
import type { Database } from '../db/database.ts';

/** Rule of the API: `$search` finds substrings and ignores case. The text is stored in lower case, so both databases agree. */
export function contains({ engine }: Pick<Database, 'engine'>, column: string, text: string) {
  const needle = text.toLowerCase();
  return engine === 'postgres'
    ? sql<boolean>`strpos(${sql.ref(column)}, ${needle}) > 0`
    : sql<boolean>`instr(${sql.ref(column)}, ${needle}) > 0`;
}
