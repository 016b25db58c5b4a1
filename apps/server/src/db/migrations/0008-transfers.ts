import { sql, type Kysely, type Migration } from 'kysely';
import type { Engine } from '../engine.ts';
import { columnTypes } from './columnTypes.ts';

/** Data centers: identical content is recognized within one store, and transfers into another store are durable jobs. */
export function transfersMigration(engine: Engine): Migration {
  const { text, int, strict } = columnTypes(engine);
  const statements = [
    `alter table block add column store ${text} not null default ''`,
    `update block set store = (select blob.store from blob where blob.id = block.blob_id)`,
    `drop index block_sha256`,
    `create unique index block_content on block (sha256, store)`,
    // Finds content that a store already has, so that it is not copied into it again.
    `create index blob_content on blob (sha256, store) where sha256 is not null`,

    `create table transfer (
      imodel_id ${text} primary key references imodel (id), store ${text} not null,
      from_baseline_id ${text} not null references baseline (id), history_id ${text} references history (id),
      head_index ${int} not null, baseline_id ${text} references baseline (id), segment_id ${text} references segment (id),
      attempt ${int} not null, fruitful_attempt ${int} not null, begun_at ${int}) ${strict}`,
    `create index transfer_history on transfer (history_id)`,
    `create index transfer_from_baseline on transfer (from_baseline_id)`,
    `create index transfer_baseline on transfer (baseline_id)`,
    `create index transfer_segment on transfer (segment_id)`,

    `alter table job add column trace ${text}`,

    `alter table operation add column changesets_done ${int} not null default 0`,
    `alter table operation add column bytes ${int} not null default 0`,
    `alter table operation add column bytes_done ${int} not null default 0`,
    `alter table operation add column bytes_under_way ${int} not null default 0`,
  ];
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      for (const statement of statements) await sql.raw(statement).execute(db);
    },
  };
}
