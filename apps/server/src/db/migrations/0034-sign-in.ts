import { sql, type Kysely, type Migration } from 'kysely';
import type { Engine } from '../engine.ts';
import { columnTypes } from './columnTypes.ts';

/** Passwords of users, and the state of the embedded OpenID Provider. */
export function signInMigration(engine: Engine): Migration {
  const { text, int, strict, keyed } = columnTypes(engine);
  const statements = [
    `create table sign_in_password (
      user_id ${text} primary key, hash ${text} not null, changed_at ${int} not null) ${strict}`,
    `create table sign_in_state (
      kind ${text} not null, id ${text} not null, payload ${text} not null, account_id ${text}, grant_id ${text},
      uid ${text}, user_code ${text}, consumed_at ${int}, expires_at ${int}, primary key (kind, id)) ${keyed}`,
    `create index sign_in_state_expires on sign_in_state (expires_at) where expires_at is not null`,
    `create index sign_in_state_grant on sign_in_state (grant_id) where grant_id is not null`,
    `create index sign_in_state_account on sign_in_state (account_id) where account_id is not null`,
    `create index sign_in_state_uid on sign_in_state (uid) where uid is not null`,
    `create index sign_in_state_user_code on sign_in_state (user_code) where user_code is not null`,
  ];
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      for (const statement of statements) await sql.raw(statement).execute(db);
    },
  };
}
