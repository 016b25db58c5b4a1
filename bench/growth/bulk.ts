import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import type { ColumnType } from 'kysely';
import pg from 'pg';
import { databaseFile } from '../../apps/server/src/db/database.ts';
import type { Schema } from '../../apps/server/src/db/schema.ts';

/** A row without the columns that the database fills. */
type Written<Row> = {
  [C in keyof Row as Row[C] extends ColumnType<unknown, unknown, unknown> ? never : C]: Row[C];
};

/** Inserts many rows directly, much faster than a server does, while no server runs. */
export interface Bulk {
  insert<T extends keyof Schema>(table: T, count: number, row: (n: number) => Written<Schema[T]>): Promise<void>;
  /** Runs one statement, with `?` for its parameters. */
  update(statement: string, parameters: readonly (string | number)[]): Promise<void>;
  /** Collects statistics for the planner, and ends. */
  finish(): Promise<void>;
}

const rowsPerStatement = 5000;

export async function openBulk(dataDir: string, databaseUrl: string | undefined): Promise<Bulk> {
  return databaseUrl === undefined ? openSqlite(path.join(dataDir, databaseFile)) : openPostgres(databaseUrl);
}

function openSqlite(file: string): Bulk {
  const database = new DatabaseSync(file);
  // Only the server's own commits need to be durable.
  database.exec('pragma synchronous = off; pragma foreign_keys = off; pragma cache_size = -1000000');
  return {
    insert: async (table, count, row) => {
      if (count === 0) return;
      const columns = Object.keys(row(0));
      const insert = database.prepare(
        `insert into "${table}" (${columns.map((name) => `"${name}"`).join(', ')}) values (${columns.map(() => '?').join(', ')})`,
      );
      database.exec('begin');
      for (let n = 0; n < count; n++) insert.run(...(Object.values(row(n)) as (string | number | null)[]));
      database.exec('commit');
    },
    update: async (statement, parameters) => {
      database.prepare(statement).run(...parameters);
    },
    finish: async () => {
      database.exec('analyze; pragma wal_checkpoint(truncate)');
      database.close();
    },
  };
}

async function openPostgres(url: string): Promise<Bulk> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  await client.query('set synchronous_commit = off');
  return {
    insert: async (table, count, row) => {
      if (count === 0) return;
      const columns = Object.keys(row(0))
        .map((name) => `"${name}"`)
        .join(', ');
      for (let first = 0; first < count; first += rowsPerStatement) {
        const rows = Array.from({ length: Math.min(rowsPerStatement, count - first) }, (_, n) => row(first + n));
        await client.query(
          `insert into "${table}" (${columns}) select ${columns} from json_populate_recordset(null::"${table}", $1::json)`,
          [JSON.stringify(rows)],
        );
      }
    },
    update: async (statement, parameters) => {
      let n = 0;
      await client.query(
        statement.replace(/\?/g, () => `$${++n}`),
        [...parameters],
      );
    },
    finish: async () => {
      await client.query('vacuum analyze');
      await client.end();
    },
  };
}
