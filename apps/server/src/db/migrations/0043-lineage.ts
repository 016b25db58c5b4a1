import { sql, type Kysely, type Migration } from 'kysely';
import type { Engine } from '../engine.ts';
import { columnTypes } from './columnTypes.ts';

interface Derived {
  id: string;
  source_id: string;
}

/** iModels that one statement changes. */
const atOnce = 500;

/**
 * From which iModel, and at which changeset, each derived iModel was made. Create operations knew it for clones and forks, but were
 * deleted with the iModel, so that the line broke at the first deleted ancestor; for templates only the audit log had it.
 *
 * `lineage_id` is the first ancestor, which all iModels of a family share: one range of an index is the whole family, and the
 * children of an iModel are a range within it. It is null for iModels that were not derived, so those add nothing to the index.
 * A deleted iModel from which others were derived leaves a row in `deleted_imodel`, without its name.
 */
export function lineageMigration(engine: Engine): Migration {
  const { text, int, strict } = columnTypes(engine);
  const detail = (name: string): string =>
    engine === 'postgres' ? `(a.detail::json ->> '${name}')` : `json_extract(a.detail, '$.${name}')`;
  const columns = [`lineage_id ${text}`, `source_id ${text}`, `source_kind ${text}`, `source_index ${int}`];
  const statements = [
    ...[...columns, `source_changeset_id ${text}`].map((column) => `alter table imodel add column ${column}`),
    `create table deleted_imodel (
      id ${text} primary key not null, itwin_id ${text}, ${columns.join(', ')}, source_changeset_id ${text},
      created_at ${int}, deleted_at ${int}) ${strict}`,
    // A fork that was squashed has no changesets of its source, so the index is looked up by id. It stays null where it is unknown.
    `update imodel set source_kind = o.kind, source_id = coalesce(o.cloned_from_imodel_id, o.forked_from_imodel_id),
      source_changeset_id = coalesce(o.cloned_from_changeset_id, o.forked_from_changeset_id),
      source_index = case
        when o.kind = 'clone' or o.changesets > 0 then o.changesets
        when o.forked_from_changeset_id = '' then 0
        else (select max(c."index") from changeset c where c.id = o.forked_from_changeset_id) end
      from operation o where o.imodel_id = imodel.id and o.kind in ('clone', 'fork')
        and coalesce(o.cloned_from_imodel_id, o.forked_from_imodel_id) is not null`,
    `update imodel set source_kind = 'template', source_id = ${detail('from')}, source_index = cast(${detail('upToIndex')} as ${int}),
      source_changeset_id = case when cast(${detail('upToIndex')} as ${int}) = 0 then '' end
      from audit a where a.action = 'iModel.template' and a.imodel_id = imodel.id and ${detail('from')} is not null`,
    // Sources that are gone already. Nothing else is known of them.
    `insert into deleted_imodel (id) select distinct m.source_id from imodel m
      where m.source_id is not null and not exists (select 1 from imodel s where s.id = m.source_id)`,
  ];
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      for (const statement of statements) await sql.raw(statement).execute(db);
      await addFamilies(db);
      // Created last, because it then is written once.
      for (const table of ['imodel', 'deleted_imodel'])
        await sql
          .raw(
            `create index ${table}_lineage on ${table} (lineage_id, source_id, created_at) where lineage_id is not null`,
          )
          .execute(db);
    },
  };
}

/** Computes the first ancestor of every derived iModel. */
async function addFamilies(db: Kysely<unknown>): Promise<void> {
  const { rows } = await sql<Derived>`select id, source_id from imodel where source_id is not null`.execute(db);
  const sources = new Map(rows.map((row) => [row.id, row.source_id]));
  const roots = new Map<string, string>();
  const families = new Map<string, string[]>();
  for (const { id } of rows) {
    // From the nearest one whose ancestor is known; a line may be thousands long, so without recursion.
    const path: string[] = [];
    let at = id;
    for (let source = sources.get(at); source !== undefined && !roots.has(at); source = sources.get(at)) {
      path.push(at);
      at = source;
    }
    const root = roots.get(at) ?? at;
    for (const each of path) {
      roots.set(each, root);
      const family = families.get(root);
      if (family === undefined) families.set(root, [each]);
      else family.push(each);
    }
  }
  for (const [root, members] of families)
    for (let from = 0; from < members.length; from += atOnce)
      await sql`update imodel set lineage_id = ${root} where id in (${sql.join(members.slice(from, from + atOnce))})`.execute(
        db,
      );
}
