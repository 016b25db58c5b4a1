import { sql, type Kysely, type Migration } from 'kysely';
import type { Engine } from '../engine.ts';
import { columnTypes } from './columnTypes.ts';

/** What repositories are called and configured with, and when a user last accessed an iModel. */
export function iTwinSurfaceMigration(engine: Engine): Migration {
  const { text, int } = columnTypes(engine);
  const statements = [
    `alter table repository add column display_name ${text}`,
    `alter table repository add column options ${text}`,
    `alter table repository add column authentication ${text}`,
    `alter table imodel_user add column last_access_at ${int}`,
    // The only access that is known so far.
    `update imodel_user set last_access_at = first_access_at`,
  ];
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      for (const statement of statements) await sql.raw(statement).execute(db);
    },
  };
}
