import { sql, type Kysely, type Migration } from 'kysely';
import type { Engine } from '../engine.ts';
import { columnTypes } from './columnTypes.ts';

/** Imported changesets keep the id of the briefcase that created them; their push belongs to a briefcase of the importer. */
export function recordedBriefcasesMigration(engine: Engine): Migration {
  const { int } = columnTypes(engine);
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      await sql.raw(`alter table pending_changeset add column recorded_briefcase_id ${int}`).execute(db);
    },
  };
}
