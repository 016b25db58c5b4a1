import { sql, type Kysely, type Migration } from 'kysely';
import type { Engine } from '../engine.ts';
import { columnTypes } from './columnTypes.ts';

/** The length of each wait of a job beside its end, so that a clock that was set back does not stretch it. */
export function jobWaitsMigration(engine: Engine): Migration {
  const { int } = columnTypes(engine);
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      // The longest wait that an earlier version gave a job is an hour.
      await sql.raw(`alter table job add column wait_ms ${int} not null default 3600000`).execute(db);
    },
  };
}
