import { sql, type Kysely, type Migration } from 'kysely';
import type { Engine } from '../engine.ts';
import { columnTypes } from './columnTypes.ts';

/** Tables whose rows name a user, and the columns of the account in whose order their users are listed. */
const listed = [
  { table: 'imodel_user', of: 'imodel_id', columns: ['given_name', 'surname'] },
  { table: 'member', of: 'itwin_id', columns: ['email'] },
  { table: 'owner', of: 'itwin_id', columns: ['email'] },
];

/**
 * Lists whose pages read only their own rows.
 *
 * Users of an iModel, members and owners of an iTwin are listed by names and e-mail addresses of their accounts. No index orders the
 * rows of one table by the columns of another, so these tables repeat the columns. Triggers keep them, so that no writer can omit
 * it. Names change rarely: a change writes all rows of the user.
 *
 * A member lists the iModels without permissions of their own by an index that has no others, so that those that are hidden from the
 * member are not looked at.
 */
export function pagesBySeeksMigration(engine: Engine): Migration {
  const { text } = columnTypes(engine);
  const statements = [
    ...['created_at', 'name_order'].map(
      (column) =>
        `create index imodel_open_${column} on imodel (itwin_id, ${column}, id) where deleted_at is null and secured_by is null`,
    ),
    ...listed.flatMap(({ table, of, columns }) => {
      const copies = columns.map((column) => `${column} = a.${column}`).join(', ');
      const names = columns.join(', ');
      return [
        ...columns.map((column) => `alter table ${table} add column ${column} ${text} not null default ''`),
        `update ${table} set ${copies} from user_account a where a.id = ${table}.user_id`,
        ...columns.map((column) => `create index ${table}_${column} on ${table} (${of}, ${column}, user_id)`),
        ...(engine === 'postgres'
          ? [
              `create function ${table}_names() returns trigger language plpgsql as $$ begin
                select ${columns.map((column) => `a.${column}`).join(', ')} into ${columns.map((column) => `new.${column}`).join(', ')}
                  from user_account a where a.id = new.user_id;
                return new; end $$`,
              // An insert that turns out to be an update runs it as well, which costs one read by the primary key.
              `create trigger ${table}_names before insert on ${table} for each row execute function ${table}_names()`,
              `create function ${table}_renamed() returns trigger language plpgsql as $$ begin
                update ${table} set ${columns.map((column) => `${column} = new.${column}`).join(', ')} where user_id = new.id;
                return null; end $$`,
              `create trigger account_${table} after update of ${names} on user_account for each row
                when ((${columns.map((column) => `old.${column}`).join(', ')}) is distinct from (${columns.map((column) => `new.${column}`).join(', ')}))
                execute function ${table}_renamed()`,
            ]
          : [
              `create trigger ${table}_names after insert on ${table} begin
                update ${table} set ${copies} from user_account a
                  where a.id = new.user_id and ${table}.user_id = new.user_id and ${table}.${of} = new.${of}; end`,
              `create trigger account_${table} after update of ${names} on user_account
                when ${columns.map((column) => `old.${column} <> new.${column}`).join(' or ')} begin
                update ${table} set ${columns.map((column) => `${column} = new.${column}`).join(', ')} where user_id = new.id; end`,
            ]),
      ];
    }),
  ];
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      for (const statement of statements) await sql.raw(statement).execute(db);
    },
  };
}
