import { sql, type Kysely, type Migration } from 'kysely';
import type { Engine } from '../engine.ts';
import { columnTypes } from './columnTypes.ts';

/**
 * An index for `$search` on iModels, which is filled after the first search of an iTwin with many iModels: `search_key` has one row for
 * every three characters that follow each other in the text of an iModel, as a number that depends on the iTwin as well.
 * `imodel.search_doc` is the number of an iModel in that table, and null while it is not in it, so that a clone writes no keys. A
 * trigger takes an iModel out when its text changes, so that no writer can omit it, servers of an earlier version included.
 */
export function searchKeysMigration(engine: Engine): Migration {
  const { int, keyed } = columnTypes(engine);
  const statements = [
    `alter table imodel add column search_doc ${int}`,
    // Not by iTwin first: PostgreSQL would use it to find the iModels of an iTwin with permissions of their own.
    `create index imodel_search on imodel (search_doc, itwin_id)`,
    `create table search_key (key ${int} not null, doc ${int} not null, primary key (key, doc)) ${keyed}`,
    ...(engine === 'postgres'
      ? [
          `create function forget_search_doc() returns trigger language plpgsql as $$ begin new.search_doc := null; return new; end $$`,
          `create trigger imodel_search_text before update of search_text on imodel for each row
            when (old.search_text is distinct from new.search_text) execute function forget_search_doc()`,
        ]
      : [
          `create trigger imodel_search_text after update of search_text on imodel
            when old.search_text <> new.search_text and new.search_doc is not null
            begin update imodel set search_doc = null where id = new.id; end`,
        ]),
  ];
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      for (const statement of statements) await sql.raw(statement).execute(db);
    },
  };
}
