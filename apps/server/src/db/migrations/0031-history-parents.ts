import { sql, type Kysely, type Migration } from 'kysely';
import type { Engine } from '../engine.ts';
import { jumpOf } from '../jumps.ts';
import { columnTypes } from './columnTypes.ts';

interface Step {
  id: string;
  parent_id: string;
  first_index: number;
}

interface Placed {
  id: string;
  first: number;
  depth: number;
  jump: Placed | undefined;
}

/**
 * A history is its own segment and a parent history up to the index before it. Until now a history was the whole list of its ranges
 * over segments, which the first push of a derived iModel copied: 188 KiB at depth 1,000, 911 KiB at depth 5,000.
 *
 * Each list ends with a segment that was opened for it, and lists that share a segment share everything before it, because a list
 * was always copied up to a head and then extended. So the lists already are the paths of a tree, and no view changes.
 */
export function historyParentsMigration(engine: Engine): Migration {
  const { text, int } = columnTypes(engine);
  const statements = [
    // A column that is added to a table can be required by a check only.
    `alter table history add column segment_id ${text} references segment (id)`,
    `alter table history add column first_index ${int} not null default 1`,
    `alter table history add column parent_id ${text} references history (id)`,
    `alter table history add column depth ${int} not null default 0`,
    `alter table history add column jump_id ${text}`,
    `alter table history add column jump_first_index ${int}`,
    `update history set
      segment_id = (select s.segment_id from history_segment s where s.history_id = history.id order by s.first_index desc limit 1),
      first_index = coalesce((select max(s.first_index) from history_segment s where s.history_id = history.id), 1)`,
    `create unique index history_segment_own on history (segment_id)`,
    // The iModel that opened the segment is gone, and so is its history; others still see a part of the segment.
    `insert into history (id, created_at, segment_id, first_index)
      select s.id, 0, s.id, (select r.first_index from history_segment r where r.segment_id = s.id limit 1) from segment s
      where exists (select 1 from history_segment r where r.segment_id = s.id)
        and not exists (select 1 from history h where h.segment_id = s.id)`,
    `update history set parent_id = (select p.id from history p where p.segment_id = (
        select q.segment_id from history_segment q
        where q.history_id = (select min(r.history_id) from history_segment r where r.segment_id = history.segment_id)
          and q.first_index < history.first_index order by q.first_index desc limit 1))
      where first_index > 1`,
    `create index history_children on history (parent_id, first_index)`,
    // The highest head of the iModels that use a history is a seek.
    `drop index imodel_history`,
    `create index imodel_history on imodel (history_id, head_index)`,
    `drop index transfer_history`,
    `create index transfer_history on transfer (history_id, head_index)`,
    `drop table history_segment`,
    // A history without any range was never written; iModels without changesets have none.
    `delete from history where segment_id is null`,
  ];
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      for (const statement of statements) await sql.raw(statement).execute(db);
      await addJumps(db);
    },
  };
}

/** Computes depth and jump of every history that has a parent. */
async function addJumps(db: Kysely<unknown>): Promise<void> {
  const { rows } = await sql<Step>`select id, parent_id, first_index from history where parent_id is not null`.execute(
    db,
  );
  const steps = new Map(rows.map((row) => [row.id, row]));
  const placed = new Map<string, Placed>();
  for (const { id } of rows) {
    // From the nearest ancestor that has been placed down to this one; a chain may be thousands deep, so without recursion.
    const path: Step[] = [];
    for (let at = steps.get(id); at !== undefined && !placed.has(at.id); at = steps.get(at.parent_id)) path.push(at);
    for (const step of path.reverse()) {
      let parent = placed.get(step.parent_id);
      if (parent === undefined)
        placed.set(step.parent_id, (parent = { id: step.parent_id, first: 1, depth: 0, jump: undefined }));
      const node = { id: step.id, first: Number(step.first_index), depth: parent.depth + 1, jump: jumpOf(parent) };
      placed.set(step.id, node);
      await sql`update history set depth = ${node.depth}, jump_id = ${node.jump.id}, jump_first_index = ${node.jump.first}
        where id = ${node.id}`.execute(db);
    }
  }
}
