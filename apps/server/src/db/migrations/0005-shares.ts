import { sql, type Kysely, type Migration } from 'kysely';
import type { Engine } from '../engine.ts';
import { columnTypes } from './columnTypes.ts';

/** Shares: keys that give their holders read-only access to one iModel. Only the hash of a key is stored. */
export function sharesMigration(engine: Engine): Migration {
  const { text, int, strict } = columnTypes(engine);
  const statements = [
    `create table share (
      id ${text} primary key, imodel_id ${text} not null references imodel (id), owner_id ${text} not null, name ${text} not null,
      permission ${text} not null, key_hash ${text} not null, created_at ${int} not null, expires_at ${int} not null) ${strict}`,
    `create unique index share_key on share (key_hash)`,
    `create index share_owner on share (imodel_id, owner_id, created_at)`,
  ];
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      for (const statement of statements) await sql.raw(statement).execute(db);
    },
  };
}
