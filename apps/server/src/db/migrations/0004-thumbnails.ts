import { sql, type Kysely, type Migration } from 'kysely';
import type { Engine } from '../engine.ts';
import { columnTypes } from './columnTypes.ts';

/** Thumbnails of iModels, in two sizes. */
export function thumbnailsMigration(engine: Engine): Migration {
  const { text, strict } = columnTypes(engine);
  const statements = [
    `create table thumbnail (
      imodel_id ${text} primary key references imodel (id), small_blob_id ${text} not null references blob (id),
      large_blob_id ${text} not null references blob (id)) ${strict}`,
    // Finds the references to a blob, which is deleted only if there are none.
    `create index thumbnail_small on thumbnail (small_blob_id)`,
    `create index thumbnail_large on thumbnail (large_blob_id)`,
  ];
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      for (const statement of statements) await sql.raw(statement).execute(db);
    },
  };
}
