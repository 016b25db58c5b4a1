import { sql, type Kysely, type Migration } from 'kysely';
import type { Engine } from '../engine.ts';
import { columnTypes } from './columnTypes.ts';

/**
 * How many named versions of an iModel a user has created, which was counted for each request of the user's statistics. Each version
 * now has its number among those of its creator, so the last one tells the count. Versions are never deleted one by one. A trigger
 * numbers them, so that no writer can omit it; rows that are copied from another database keep their numbers.
 */
export function versionCountsMigration(engine: Engine): Migration {
  const { int } = columnTypes(engine);
  const next = `1 + coalesce((select max(creator_count) from named_version
    where imodel_id = new.imodel_id and creator_id = new.creator_id), 0)`;
  const statements = [
    `alter table named_version add column creator_count ${int}`,
    `update named_version set creator_count = c.number from (
      select id, row_number() over (partition by imodel_id, creator_id order by created_at, id) as number from named_version) as c
      where c.id = named_version.id`,
    `drop index named_version_creator`,
    `create index named_version_creator on named_version (imodel_id, creator_id, creator_count)`,
    ...(engine === 'postgres'
      ? [
          `create function number_version() returns trigger language plpgsql as $$ begin
            new.creator_count := ${next}; return new; end $$`,
          `create trigger named_version_number before insert on named_version for each row
            when (new.creator_count is null) execute function number_version()`,
        ]
      : [
          `create trigger named_version_number after insert on named_version when new.creator_count is null begin
            update named_version set creator_count = ${next} where id = new.id; end`,
        ]),
  ];
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      for (const statement of statements) await sql.raw(statement).execute(db);
    },
  };
}
