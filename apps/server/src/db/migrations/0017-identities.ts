import { sql, type Kysely, type Migration } from 'kysely';
import type { Engine } from '../engine.ts';
import { columnTypes } from './columnTypes.ts';

/**
 * Users are identified by issuer and subject together. Users of earlier versions have neither, because the issuer of their tokens
 * was not recorded; the first token that is allowed to claim such a user does so (`Users.idOf`). An e-mail address identifies a
 * user only if the issuer has verified it or the users file contains it.
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
