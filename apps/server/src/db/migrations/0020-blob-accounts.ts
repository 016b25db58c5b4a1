import { sql, type Kysely, type Migration } from 'kysely';
import type { Engine } from '../engine.ts';
import { columnTypes } from './columnTypes.ts';

/** The iTwin and account whose quota each blob counts toward. Existing images and checkpoint blocks count toward none. */
export function blobAccountsMigration(engine: Engine): Migration {
  const { text } = columnTypes(engine);
  const owner = (from: string): string => `(select m.itwin_id from ${from} limit 1)`;
  const statements = [
    `alter table blob add column itwin_id ${text}`,
    `alter table blob add column account_id ${text}`,
    `update blob set itwin_id = ${owner('changeset c join segment s on s.id = c.segment_id join imodel m on m.id = s.owner_imodel_id where c.blob_id = blob.id')}`,
    `update blob set itwin_id = ${owner('pending_changeset p join imodel m on m.id = p.imodel_id where p.blob_id = blob.id')} where itwin_id is null`,
    // A baseline counts toward the oldest iModel that uses it; the seeds belong to the server.
    `update blob set itwin_id = ${owner('baseline l join imodel m on m.baseline_id = l.id where l.blob_id = blob.id order by m.created_at')} where itwin_id is null and id not like 'seed-%'`,
    `update blob set account_id = (select coalesce('org:' || i.organization_id, 'user:' || i.owner_id) from itwin i where i.id = blob.itwin_id) where itwin_id is not null`,
    `create index blob_itwin on blob (itwin_id, size)`,
    `create index blob_account on blob (account_id, size)`,
  ];
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      for (const statement of statements) await sql.raw(statement).execute(db);
    },
  };
}
