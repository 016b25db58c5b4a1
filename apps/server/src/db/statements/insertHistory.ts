import { randomUUID } from 'node:crypto';
import { compiledQuery } from '../compiledQuery.ts';
import type { Tx } from '../database.ts';
import { defer } from '../deferred.ts';
import { jumpOf, type Jumping } from '../jumps.ts';
import { historyAt } from './historyRanges.ts';
import type { HistoryView } from './segmentAt.ts';

/** A history to be added. */
export interface NewHistory {
  /** Its own segment, which no other history has. */
  segmentId: string;
  /** Index of the first changeset of that segment. */
  firstIndex: number;
  /** What it continues: the view that ends before `firstIndex`. Without changesets, it continues nothing. */
  from: HistoryView;
  /** ms since 1970 */
  now: number;
}

interface Ancestor extends Jumping<Ancestor> {
  id: string;
  firstIndex: number;
}

/**
 * Adds a history: its own segment and, before it, a parent, which is the history that contains the head of the view it continues.
 * @returns its id
 */
export async function insertHistory(tx: Tx, { segmentId, firstIndex, from, now }: NewHistory): Promise<string> {
  const id = randomUUID();
  const parent = from.history_id === null ? undefined : await ancestorAt(tx, from.history_id, from.head_index);
  const jump = parent === undefined ? undefined : jumpOf(parent);
  await defer(
    tx,
    tx
      .insertInto('history')
      .values({
        id,
        created_at: now,
        segment_id: segmentId,
        first_index: firstIndex,
        parent_id: parent?.id ?? null,
        depth: parent === undefined ? 0 : parent.depth + 1,
        jump_id: jump?.id ?? null,
        jump_first_index: jump?.firstIndex ?? null,
      })
      .execute(),
  );
  return id;
}

/** The history that contains an index, with its jump and the jump of that. @throws Error if there is none */
async function ancestorAt(tx: Tx, historyId: string, index: number): Promise<Ancestor> {
  const row = await ancestor.first(tx, { historyId, index });
  if (row === undefined) throw new Error('a history has no changeset at the head of its view');
  const { jump_id, jump_first, jump_depth, next_id, next_first, next_depth } = row;
  const next = at(next_id, next_first, next_depth, undefined);
  return {
    id: row.id,
    firstIndex: row.first_index,
    depth: row.depth,
    jump: at(jump_id, jump_first, jump_depth, next),
  };
}

function at(
  id: string | null,
  firstIndex: number | null,
  depth: number | null,
  jump: Ancestor | undefined,
): Ancestor | undefined {
  return id === null || firstIndex === null || depth === null ? undefined : { id, firstIndex, depth, jump };
}

const ancestor = compiledQuery((db, { historyId, index }: { historyId: string; index: number }) =>
  db
    .selectFrom('history as p')
    .leftJoin('history as j', 'j.id', 'p.jump_id')
    .leftJoin('history as n', 'n.id', 'j.jump_id')
    .select([
      'p.id',
      'p.first_index',
      'p.depth',
      'j.id as jump_id',
      'j.first_index as jump_first',
      'j.depth as jump_depth',
      'n.id as next_id',
      'n.first_index as next_first',
      'n.depth as next_depth',
    ])
    .where('p.id', '=', historyAt(historyId, index)),
);
