import { sql, type Kysely, type Migration } from 'kysely';
import type { Engine } from '../engine.ts';
import { columnTypes } from './columnTypes.ts';

/** Answers to POST requests that may be repeated. Existing names are normalized to NFC, the form in which they are now compared. */
export function idempotencyMigration(engine: Engine): Migration {
  const { text, int, strict } = columnTypes(engine);
  const statements = [
    `create table repeatable_request (
      id ${text} primary key, fingerprint ${text} not null, run_id ${text} not null, lease_until ${int} not null,
      outcomes ${text}, answer ${text}, made ${text}, expires_at ${int} not null) ${strict}`,
    `create index repeatable_request_expires on repeatable_request (expires_at)`,
  ];
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      for (const statement of statements) await sql.raw(statement).execute(db);
      for (const named of namedTables) await normalizeNames(db, engine, named);
    },
  };
}

/** A table with names: the scope within which they are unique, and the columns derived from them. */
interface NamedTable {
  table: string;
  /** Columns that are each unique within the scope. */
  unique: readonly string[];
  text: readonly string[];
  scope: readonly string[];
  live: string;
  derived: (row: Record<string, string | null>) => Record<string, string>;
}

const lower = (...texts: readonly (string | null | undefined)[]): string =>
  texts
    .map((text) => text ?? '')
    .join('\n')
    .toLowerCase();

const namedTables: readonly NamedTable[] = [
  {
    table: 'imodel',
    unique: ['name'],
    text: ['name', 'description'],
    scope: ['itwin_id'],
    live: 'deleted_at is null and failed_at is null',
    derived: ({ name, description }) => ({ name_order: lower(name), search_text: lower(name, description) }),
  },
  {
    table: 'named_version',
    unique: ['name'],
    text: ['name', 'description'],
    scope: ['imodel_id'],
    live: 'true',
    derived: ({ name, description }) => ({ search_text: lower(name, description) }),
  },
  {
    table: 'itwin',
    unique: ['display_name', 'number'],
    text: ['display_name', 'number'],
    scope: ['organization_id', 'sub_class'],
    live: 'deleted_at is null',
    derived: ({ display_name, number }) => ({ search_text: lower(display_name, number) }),
  },
];

/** Normalizes the names of a table to NFC. A name whose NFC form is already the name of another row is left unchanged. */
async function normalizeNames(
  db: Kysely<unknown>,
  engine: Engine,
  { table, unique, text, scope, live, derived }: NamedTable,
): Promise<void> {
  const beyondAscii = sql.join(
    text.map((column) =>
      engine === 'postgres' ? sql`${sql.ref(column)} ~ '[^ -~]'` : sql`${sql.ref(column)} glob '*[^ -~]*'`,
    ),
    sql` or `,
  );
  const { rows } = await sql<
    Record<string, string | null>
  >`select * from ${sql.table(table)} where ${sql.raw(live)} and (${beyondAscii})`.execute(db);
  for (const row of rows) {
    const changed = Object.fromEntries(text.map((column) => [column, row[column]?.normalize('NFC') ?? null]));
    if (text.every((column) => changed[column] === row[column])) continue;
    const same = sql.join(
      scope.map((column) => sql`${sql.ref(column)} is not distinct from ${row[column]}`),
      sql` and `,
    );
    const names = sql.join(
      unique.map((column) => sql`${sql.ref(column)} = ${changed[column]}`),
      sql` or `,
    );
    const taken =
      await sql`select 1 from ${sql.table(table)} where ${same} and (${names}) and id <> ${row['id']} and ${sql.raw(live)} limit 1`.execute(
        db,
      );
    if (taken.rows.length > 0) continue;
    const set = Object.entries({ ...changed, ...derived(changed) }).map(
      ([column, value]) => sql`${sql.ref(column)} = ${value}`,
    );
    await sql`update ${sql.table(table)} set ${sql.join(set)} where id = ${row['id']}`.execute(db);
  }
}
