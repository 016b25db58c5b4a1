import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as pause } from 'node:timers/promises';
import pg from 'pg';
import { databaseFile } from '../../apps/server/src/db/database.ts';
import type { Installation } from '../installation.ts';

/** How often the database is looked at, milliseconds. */
const pollMs = 200;

const missing = (mark: string): string =>
  `select count(*) as count from imodel where itwin_id = ${mark} and deleted_at is null and search_doc is null`;

/** Waits until all iModels of an iTwin are in the search index, which its first search has filled. @throws after `seconds` */
export async function searchIndexFilled(
  { dataDir, databaseUrl }: Pick<Installation<unknown>, 'dataDir' | 'databaseUrl'>,
  iTwinId: string,
  seconds: number,
): Promise<void> {
  const until = performance.now() + seconds * 1000;
  const { count, close } =
    databaseUrl === undefined ? openSqlite(path.join(dataDir, databaseFile)) : await openPostgres(databaseUrl);
  try {
    while ((await count(iTwinId)) > 0) {
      if (performance.now() > until) throw new Error(`the search index was not filled within ${seconds} s`);
      await pause(pollMs);
    }
  } finally {
    await close();
  }
}

interface Counter {
  count: (iTwinId: string) => Promise<number>;
  close: () => Promise<void>;
}

function openSqlite(file: string): Counter {
  const database = new DatabaseSync(file, { readOnly: true });
  const query = database.prepare(missing('?'));
  return { count: async (iTwinId) => Number(query.get(iTwinId)?.['count']), close: async () => database.close() };
}

async function openPostgres(url: string): Promise<Counter> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  // The statistics of the planner are brought up to date at the end.
  const unread = `(select count(*) from pg_class where relname = 'search_key' and reltuples < 1)`;
  const query = `select count + ${unread} as count from (${missing('$1')}) as missing`;
  return {
    count: async (iTwinId) => Number((await client.query<{ count: string }>(query, [iTwinId])).rows[0]?.count),
    close: () => client.end(),
  };
}
