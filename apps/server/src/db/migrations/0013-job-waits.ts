import { sql, type Kysely, type Migration } from 'kysely';
import type { Engine } from '../engine.ts';
import { columnTypes } from './columnTypes.ts';

/** Stores the length of each wait of a job in addition to its end, so that setting the clock back does not prolong it. */
export function jobWaitsMigration(engine: Engine): Migration {
  const { int } = columnTypes(engine);
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      // In earlier versions, a job waited for an hour at most.
      await sql.raw(`alter table job add column wait_ms ${int} not null default 3600000`).execute(db);
    },
  };
}
