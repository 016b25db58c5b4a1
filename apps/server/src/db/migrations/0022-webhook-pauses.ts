import { sql, type Kysely, type Migration } from 'kysely';
import type { Engine } from '../engine.ts';
import { columnTypes } from './columnTypes.ts';

/** The number of consecutive failures of a webhook's receiver, and the end of its pause. */
export function webhookPausesMigration(engine: Engine): Migration {
  const { int } = columnTypes(engine);
  const statements = [
    `alter table webhook add column failures ${int} not null default 0`,
    `alter table webhook add column paused_until ${int}`,
    `create index webhook_creator on webhook (creator_id)`,
    // Messages of earlier versions revealed which names exist in the server's own network.
    `update job set last_error = 'The receiver could not be reached.' where kind = 'deliver' and (last_error like 'The host name of the receiver %' or last_error like 'The address of the receiver is not allowed%' or last_error = 'The receiver cannot be reached.')`,
  ];
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      for (const statement of statements) await sql.raw(statement).execute(db);
    },
  };
}
