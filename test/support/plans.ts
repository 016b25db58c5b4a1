import { AsyncLocalStorage } from 'node:async_hooks';
import { subscribe } from 'node:diagnostics_channel';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { DefaultQueryExecutor, type CompiledQuery } from 'kysely';
import pg from 'pg';
import type { Installation, TestServer } from './server.ts';

/** A statement that was executed, with the values bound to it. */
export interface Statement {
  sql: string;
  parameters: readonly unknown[];
}

/** Statements of each capture that is open now. */
const captures = new Set<Statement[]>();

/** The captures that the work which runs now belongs to. */
const capturesOfWork = new AsyncLocalStorage<readonly Statement[][]>();

let watching = false;

/**
 * Every statement of every Kysely instance in this process passes through one method, inside transactions too. A server handles a request
 * in the context of its socket, so requests are assigned to the open captures when they arrive.
 */
function watch(): void {
  if (watching) return;
  watching = true;
  subscribe('http.server.request.start', () => capturesOfWork.enterWith([...captures]));
  const prototype = Object.getPrototypeOf(DefaultQueryExecutor.prototype) as {
    executeQuery(query: CompiledQuery): Promise<unknown>;
  };
  // eslint-disable-next-line @typescript-eslint/unbound-method -- called with the executor as `this` below
  const { executeQuery } = prototype;
  prototype.executeQuery = function (query) {
    for (const statements of capturesOfWork.getStore() ?? [])
      statements.push({ sql: query.sql, parameters: query.parameters });
    return executeQuery.call(this, query);
  };
}

/**
 * Runs work, for example a request to a server of this process, and returns the statements that it executed, and those of all requests
 * that arrived meanwhile. What servers of this process do in the background beside it, such as jobs, is left out.
 */
export async function statementsOf(work: () => Promise<unknown>): Promise<Statement[]> {
  watch();
  const statements: Statement[] = [];
  captures.add(statements);
  try {
    await capturesOfWork.run([...(capturesOfWork.getStore() ?? []), statements], work);
  } finally {
    captures.delete(statements);
  }
  return statements;
}

/** The statements that contain all of these parts. */
export function naming(statements: readonly Statement[], ...parts: string[]): Statement[] {
  return statements.filter(({ sql }) => parts.every((part) => sql.includes(part)));
}

/** Explains statements on the database of a server, without executing them. */
export class Planner {
  readonly #installation: Installation;

  constructor(server: TestServer) {
    this.#installation = server.installation;
  }

  /**
   * The plan of a statement, one step a line. On PostgreSQL sequential and bitmap scans and sorts are disabled: tables of tests are small,
   * so the planner would choose them even where an index fits. Where a plan still has one, no index could be used.
   */
  async plan({ sql, parameters }: Statement): Promise<string> {
    const { databaseUrl, dataDir } = this.#installation;
    return databaseUrl === undefined
      ? planOfSqlite(dataDir, sql, parameters)
      : planOfPostgres(databaseUrl, sql, parameters);
  }

  /** Plans of all statements, each after its text. */
  async plans(statements: readonly Statement[]): Promise<string[]> {
    return Promise.all(statements.map(async (statement) => `${statement.sql}\n${await this.plan(statement)}`));
  }
}

function planOfSqlite(dataDir: string, sql: string, parameters: readonly unknown[]): string {
  const database = new DatabaseSync(path.join(dataDir, 'offshoot.db'), { readOnly: true });
  try {
    const rows = database.prepare(`explain query plan ${sql}`).all(...(parameters as (string | number | null)[]));
    return rows.map(({ detail }) => String(detail)).join('\n');
  } finally {
    database.close();
  }
}

async function planOfPostgres(url: string, sql: string, parameters: readonly unknown[]): Promise<string> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    await client.query('set enable_seqscan = off; set enable_bitmapscan = off; set enable_sort = off');
    const { rows } = await client.query<{ 'QUERY PLAN': string }>(`explain ${sql}`, [...parameters]);
    return rows.map((row) => row['QUERY PLAN']).join('\n');
  } finally {
    await client.end();
  }
}

/** Names of recursive tables (`db/statements/historyRanges.ts`): their rows are steps of a walk, not of a table. */
const walks = ['walk', 'w', 'below', 'b'];

/** Steps of a plan that read a table or an index from its beginning to its end, which no number of rows bounds. */
export function fullScans(plan: string): string[] {
  return plan
    .split('\n')
    .map((step) => step.trim())
    .filter((step) => /\bSeq Scan on\b/.test(step) || /^SCAN (?!CONSTANT|\(|\w+ VIRTUAL)/.test(step))
    .filter((step) => !walks.includes(step.replace(/^SCAN /, '')));
}
