import { sql, type Kysely, type Migration } from 'kysely';
import type { Engine } from '../engine.ts';
import { columnTypes } from './columnTypes.ts';

/** Names and configuration of repositories, and the time of a user's last access to an iModel. */
export function iTwinSurfaceMigration(engine: Engine): Migration {
  const { text, int } = columnTypes(engine);
  const statements = [
    `alter table repository add column display_name ${text}`,
    `alter table repository add column options ${text}`,
    `alter table repository add column authentication ${text}`,
    `alter table imodel_user add column last_access_at ${int}`,
    // Earlier versions recorded only the first access.
    `update imodel_user set last_access_at = first_access_at`,
  ];
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      for (const statement of statements) await sql.raw(statement).execute(db);
    },
  };
}
