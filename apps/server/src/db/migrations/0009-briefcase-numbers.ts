import { sql, type Kysely, type Migration } from 'kysely';
import type { Engine } from '../engine.ts';
import { columnTypes } from './columnTypes.ts';

/** Maximum number of iModels whose counter one statement raises. */
const batch = 500;

interface Counter {
  id: string;
  next: number;
}
interface Derivation {
  id: string;
  source: string;
}

/**
 * Earlier versions started derived iModels at briefcase id 2, regardless of the ids that their source had issued. This migration
 * raises their counters above every id that may occur in them; briefcases that already exist keep their ids. It also records the
 * index up to which their changesets are inherited.
 */
export function briefcaseNumbersMigration(engine: Engine): Migration {
  const { int } = columnTypes(engine);
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      await sql.raw(`alter table imodel add column inherited_index ${int} not null default 0`).execute(db);
      // For a clone, or a fork with history, the number of changesets that it started with; for all other iModels, 0.
      await sql`update imodel set inherited_index = coalesce((select changesets from operation where operation.imodel_id = imodel.id), 0)`.execute(
        db,
      );
      await raiseAboveChangesets(db);
      await raiseAboveSources(db);
    },
  };
}

/** Raises counters above the briefcase ids of the changesets in the history. Reads each changeset once, even if many iModels see it. */
async function raiseAboveChangesets(db: Kysely<unknown>): Promise<void> {
  await sql`
    with in_segment as (select segment_id, max(briefcase_id) as highest from changeset group by segment_id),
    in_history as (
      select h.history_id, max(s.highest) as highest
      from history_segment h join in_segment s on s.segment_id = h.segment_id group by h.history_id)
    update imodel set next_briefcase_id = in_history.highest + 1
    from in_history
    where imodel.history_id = in_history.history_id and imodel.next_briefcase_id <= in_history.highest`.execute(db);
}

/**
 * Raises the counter of a derived iModel to the highest counter of all iModels with the same origin. Its source's counter would be
 * enough, but the source may be deleted, and then only these others are known. A counter that is too high does no harm: there are
 * 16 million ids.
 */
async function raiseAboveSources(db: Kysely<unknown>): Promise<void> {
  const derivations = [...(await derivationsIn(db))];
  if (derivations.length === 0) return;
  const originOf = origins(derivations);
  const counters = (await sql<Counter>`select id, next_briefcase_id as next from imodel`.execute(db)).rows;
  const highest = new Map<string, number>();
  for (const { id, next } of counters)
    highest.set(originOf(id), Math.max(Number(next), highest.get(originOf(id)) ?? 0));

  const derived = new Set(derivations.map(({ id }) => id));
  const raised = new Map<number, string[]>();
  for (const { id, next } of counters) {
    const wanted = highest.get(originOf(id)) ?? 0;
    if (!derived.has(id) || wanted <= Number(next)) continue;
    const ids = raised.get(wanted);
    if (ids === undefined) raised.set(wanted, [id]);
    else ids.push(id);
  }
  for (const [next, ids] of raised)
    for (let from = 0; from < ids.length; from += batch)
      await sql`update imodel set next_briefcase_id = ${next} where id in (${sql.join(ids.slice(from, from + batch))})`.execute(
        db,
      );
}

/** All derived iModels with their sources. The audit log adds iModels from templates, and deleted ones. */
async function derivationsIn(db: Kysely<unknown>): Promise<Iterable<Derivation>> {
  const found: Derivation[] = [];
  const operations = await sql<Derivation>`
    select imodel_id as id, coalesce(cloned_from_imodel_id, forked_from_imodel_id) as source
    from operation where coalesce(cloned_from_imodel_id, forked_from_imodel_id) is not null`.execute(db);
  found.push(...operations.rows);
  const audited = await sql<{ id: string | null; detail: string }>`
    select imodel_id as id, detail from audit where action in ('iModel.clone', 'iModel.fork', 'iModel.template')`.execute(
    db,
  );
  for (const { id, detail } of audited.rows) {
    const { from } = JSON.parse(detail) as { from?: unknown };
    if (id !== null && typeof from === 'string') found.push({ id, source: from });
  }
  return found;
}

/** @returns a function that returns the same id for all iModels derived from each other, directly or indirectly (union-find) */
function origins(derivations: readonly Derivation[]): (id: string) => string {
  const parents = new Map<string, string>();
  const find = (id: string): string => {
    let root = id;
    for (let up = parents.get(root); up !== undefined; up = parents.get(root)) root = up;
    for (let at = id; at !== root;) {
      const up = parents.get(at) as string;
      parents.set(at, root);
      at = up;
    }
    return root;
  };
  for (const { id, source } of derivations) {
    const [one, other] = [find(id), find(source)];
    if (one !== other) parents.set(one, other);
  }
  return find;
}
