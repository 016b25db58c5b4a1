import { sql, type RawBuilder } from 'kysely';
import type { Database, Db } from '../db/database.ts';
import type { Schema } from '../db/schema.ts';

/** Every table, in an order that satisfies the foreign keys. */
export const tablesInOrder = [
  'user_account',
  'itwin',
  'owner',
  'role',
  'member',
  'user_group',
  'group_user',
  'group_member',
  'repository',
  'webhook',
  'blob',
  'itwin_image',
  'baseline',
  'segment',
  'changeset',
  'history',
  'imodel',
  'deleted_imodel',
  'imodel_grant',
  'imodel_user',
  'push_count',
  'search_key',
  'pending_changeset',
  'upload',
  'abandoned_push',
  'briefcase',
  'named_version',
  'object_lock',
  'released_lock',
  'changeset_group',
  'grouped_changeset',
  'extended_data',
  'mark',
  'thumbnail',
  'share',
  'block',
  'model_file',
  'model_file_block',
  'checkpoint',
  'graphics',
  'graphics_file',
  'transfer',
  'operation',
  'job',
  'repeatable_request',
  'audit',
  'secret',
  'orphan_check',
  'sign_in_password',
  'sign_in_state',
] as const satisfies readonly (keyof Schema)[];

/** Rows per statement. The widest table has 29 columns, and PostgreSQL allows 65,535 parameters per statement. */
const batch = 500;

type Row = Record<string, string | number | null>;

/** The target database already contains rows. */
export class NotEmptyError extends Error {
  constructor(table: string) {
    super(`The target database is not empty: table ${table} has rows. Name an empty database.`);
    this.name = 'NotEmptyError';
  }
}

/** A row in the target differs from the original. The transaction was rolled back. */
export class CopyMismatchError extends Error {
  constructor(table: string, row: unknown) {
    super(`The copy of table ${table} differs from its original: ${JSON.stringify(row)}`);
    this.name = 'CopyMismatchError';
  }
}

/**
 * Copies an embedded database to an empty PostgreSQL database in one transaction, and compares every row before the
 * commit.
 * @returns the number of rows by table
 * @throws NotEmptyError, CopyMismatchError; the target is unchanged then
 */
export async function copyDatabase(
  from: Database,
  to: Database,
  onTable: (table: string, rows: number) => void = () => undefined,
): Promise<Record<string, number>> {
  const counts: Record<string, number> = {};
  await to.db.transaction().execute(async (tx) => {
    for (const table of tablesInOrder) {
      const first = await sql`select 1 from ${sql.table(table)} limit 1`.execute(tx);
      if (first.rows.length > 0) throw new NotEmptyError(table);
    }
    for (const table of tablesInOrder) {
      // A history refers to its parent, which has a smaller depth.
      const keys = table === 'history' ? ['depth', 'id'] : await keysOf(from.db, table);
      let count = 0;
      for await (const rows of batches(from.db, table, keys)) {
        await tx.insertInto(table).values(rows).execute();
        count += rows.length;
      }
      await compare(from.db, tx, table, keys, count);
      counts[table] = count;
      onTable(table, count);
    }
  });
  return counts;
}

async function compare(from: Db, to: Db, table: string, keys: readonly string[], expected: number): Promise<void> {
  const copies = batches(to, table, keys);
  let compared = 0;
  for await (const rows of batches(from, table, keys)) {
    const copied = (await copies.next()).value;
    for (const [n, row] of rows.entries()) {
      if (JSON.stringify(sorted(row)) !== JSON.stringify(sorted(copied?.[n] ?? {})))
        throw new CopyMismatchError(table, row);
      compared++;
    }
  }
  const more = await copies.next();
  if (compared !== expected || more.done !== true) throw new CopyMismatchError(table, { rows: expected, compared });
}

const sorted = (row: Row): [string, Row[string]][] => Object.entries(row).sort(([a], [b]) => (a < b ? -1 : 1));

/** Reads all rows in batches, ordered by primary key. */
async function* batches(db: Db, table: string, keys: readonly string[]): AsyncGenerator<Row[], undefined> {
  const columns = sql.join(keys.map((key) => sql.ref(key)));
  let after: RawBuilder<unknown> = sql``;
  for (;;) {
    const { rows } =
      await sql<Row>`select * from ${sql.table(table)} ${after} order by ${columns} limit ${sql.lit(batch)}`.execute(
        db,
      );
    const last = rows.at(-1);
    if (last === undefined) return undefined;
    yield rows;
    after = sql`where (${columns}) > (${sql.join(keys.map((key) => last[key]))})`;
  }
}

async function keysOf(db: Db, table: string): Promise<string[]> {
  const { rows } = await sql<{
    name: string;
    pk: number;
  }>`select name, pk from pragma_table_info(${table}) where pk > 0 order by pk`.execute(db);
  return rows.map(({ name }) => name);
}
