import { sql, type Kysely, type Migration } from 'kysely';
import type { Engine } from '../engine.ts';
import { columnTypes } from './columnTypes.ts';

/**
 * A user is known by issuer and subject together. Users from before have neither: nothing was written down that tells whose
 * tokens made them known, so the first token that may claim them does (`Users.idOf`). Nobody is found by an e-mail until its
 * issuer has verified it, or the users file has it.
 */
export function identitiesMigration(engine: Engine): Migration {
  const { text } = columnTypes(engine);
  const statements = [
    ...['issuer', 'subject', 'verified_email'].map((column) => `alter table user_account add column ${column} ${text}`),
    `create unique index user_account_identity on user_account (issuer, subject)`,
    `create index user_account_verified_email on user_account (verified_email) where verified_email is not null`,
  ];
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      for (const statement of statements) await sql.raw(statement).execute(db);
    },
  };
}
