import { DatabaseSync } from 'node:sqlite';

/** Rule of iTwin.js: an id is `briefcaseId << 40 | n`. */
const briefcaseBits = 40n;

/**
 * The highest briefcase id that was used to create ids in an iModel file: the briefcase part of the highest id of
 * elements, models, aspects and link-table relationships in any schema, because iTwin.js builds all of these from the
 * briefcase id. 0 for a file that was never a briefcase.
 *
 * Reads only the last entry of each primary key, so it takes a few milliseconds for a file of any size.
 */
export function highestBriefcaseIn(file: string): number {
  const db = new DatabaseSync(file, { readOnly: true });
  try {
    // The tables of instances as ECDb lists them, except those that are virtual in ECDb (type 4) or in SQLite. ECDb's
    // own tables (`ec_…`) and those of transactions have other kinds of ids.
    const tables = db
      .prepare(
        "select m.name from ec_Table t join sqlite_schema m on m.name = t.Name collate nocase where m.type = 'table' and t.Type <> 4 and m.sql not like 'create virtual%' and m.name not like 'ec\\_%' escape '\\'",
      )
      .all() as { name: string }[];
    let highest = 0n;
    for (const { name } of tables) {
      const id = highestId(db, name);
      if (id > highest) highest = id;
    }
    return Number(highest >> briefcaseBits);
  } finally {
    db.close();
  }
}

function highestId(db: DatabaseSync, table: string): bigint {
  const quoted = `"${table.replaceAll('"', '""')}"`;
  const keys = db.prepare(`select name, type from pragma_table_info(?) where pk > 0`).all(table) as {
    name: string;
    type: string;
  }[];
  // Only a single integer primary key is the rowid, and therefore the id.
  const [key] = keys;
  if (keys.length !== 1 || key?.type.toUpperCase() !== 'INTEGER') return 0n;
  const query = db.prepare(`select max(rowid) as id from ${quoted}`);
  query.setReadBigInts(true);
  return (query.get()?.['id'] as bigint | null | undefined) ?? 0n;
}
