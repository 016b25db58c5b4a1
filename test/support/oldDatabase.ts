import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { Kysely, Migrator } from 'kysely';
import { databaseFile } from '../../apps/server/src/db/database.ts';
import { migrationsFor } from '../../apps/server/src/db/migrations/index.ts';
import { sqliteDialect } from '../../apps/server/src/db/sqlite/dialect.ts';
import { Writer } from '../../apps/server/src/db/sqlite/writerQueue.ts';
import { people } from './server.ts';

/** Row counts of the generated database. The changesets are spread evenly over the iModels, with one iModel per iTwin. */
export const oldRows = { iTwins: 2000, changesets: 40_000 };
/** Migrations of the version that created it. */
const earlier = 5;

/** Creates an embedded database as an earlier version left it, with many rows, owned by Olivia. */
export async function makeOldDatabase(folder: string): Promise<void> {
  const file = path.join(folder, databaseFile);
  const writer = new Writer(file, { turnMs: 60_000, statementMs: 60_000 });
  const db = new Kysely<unknown>({ dialect: sqliteDialect(file, writer) });
  const migrations = Object.fromEntries(Object.entries(migrationsFor('sqlite')).slice(0, earlier));
  const { error } = await new Migrator({ db, provider: { getMigrations: async () => migrations } }).migrateToLatest();
  await db.destroy();
  if (error !== undefined) throw error as Error;

  const { iTwins, changesets } = oldRows;
  const each = changesets / iTwins;
  const { id: olivia, organizationId } = people.olivia;
  const database = new DatabaseSync(file);
  try {
    // Shaped like ids: 36 characters that sort like the numbers in them.
    database.function(
      'guid',
      { deterministic: true },
      (kind, n) => `${String(kind).padStart(8, '0')}-0000-4000-8000-${String(n).padStart(12, '0')}`,
    );
    database.exec(`
      begin;
      create temp table number as with recursive n (i) as (select 1 union all select i + 1 from n where i < ${changesets}) select i from n;
      insert into user_account values ('${olivia}', 'olivia@example.test', 'olivia', 'Tester', '${organizationId}', 1);
      insert into itwin (id, organization_id, owner_id, class, sub_class, type, number, display_name, search_text, geographic_location, data_center, status, parent_id, created_at)
        select guid(1, i), '${organizationId}', '${olivia}', 'Endeavor', 'Project', null, 'number ' || i, 'iTwin ' || i, 'itwin ' || i, null, 'East US', 'Active', null, i from number where i <= ${iTwins};
      insert into blob (id, store, key, size, sha256, state, created_at, released_at)
        select guid(2, i), 'files', guid(2, i), 100, printf('%064x', i), 'stored', i, null from number;
      insert into blob (id, store, key, size, sha256, state, created_at, released_at) values (guid(3, 1), 'files', guid(3, 1), 100, printf('%064x', 0), 'stored', 1, null);
      insert into baseline (id, blob_id, state, created_at) values (guid(4, 1), guid(3, 1), 'initialized', 1);
      insert into history (id, created_at) select guid(5, i), i from number where i <= ${iTwins};
      insert into segment (id, owner_imodel_id) select guid(6, i), guid(7, i) from number where i <= ${iTwins};
      insert into history_segment (history_id, first_index, last_index, segment_id) select guid(5, i), 1, 9007199254740991, guid(6, i) from number where i <= ${iTwins};
      insert into imodel (id, itwin_id, name, name_order, search_text, description, extent, containers_enabled, geographic_crs, state, baseline_id, history_id, head_index, head_changeset_id, last_pushed_at, creator_id, created_at, clock, next_briefcase_id, secured_by, deleted_at)
        select guid(7, i), guid(1, i), 'iModel', 'imodel', 'imodel', null, null, 0, null, 'initialized', guid(4, 1), guid(5, i), ${each}, printf('%040x', i * ${each}), 1, '${olivia}', i, 1, 3, null, null from number where i <= ${iTwins};
      insert into operation (id, imodel_id, kind, state, cloned_from_imodel_id, cloned_from_changeset_id, changesets, failure_reason, created_at, finished_at)
        select guid(8, i), guid(7, i), 'create', 'successful', null, null, 0, null, i, i from number where i <= ${iTwins};
      insert into changeset (segment_id, "index", id, parent_id, blob_id, file_size, description, containing_changes, briefcase_id, creator_id, pushed_at, application_id, application_name, synchronization_info)
        select guid(6, (i - 1) / ${each} + 1), (i - 1) % ${each} + 1, printf('%040x', i), case (i - 1) % ${each} when 0 then '' else printf('%040x', i - 1) end, guid(2, i), 100, null, 0, 2, '${olivia}', i, 'suite', 'suite', null from number;
      insert into audit (id, at, actor_id, application_id, action, itwin_id, imodel_id, detail)
        select guid(9, i), i, '${olivia}', 'suite', 'changeset.push', guid(1, 1), guid(7, 1), '{}' from number;
      drop table temp.number;
      commit;
    `);
  } finally {
    database.close();
  }
}

/** Id of the nth iModel of the generated database, from 1. */
export function oldIModelId(n: number): string {
  return `00000007-0000-4000-8000-${String(n).padStart(12, '0')}`;
}
