import { DatabaseSync } from 'node:sqlite';

/** Rule of iTwin.js: an id is `briefcaseId << 40 | n`. */
const briefcaseBits = 40n;

/**
 * The highest briefcase that made anything in an iModel file: the briefcase part of the highest id of elements, models, aspects
 * and link-table relationships, in any schema. iTwin.js numbers all of these by briefcase. 0 when all were made by nobody's, as in a
 * file that was never a briefcase.
 *
 * Each table is asked for the end of its primary key, so this takes some milliseconds whatever the size of the file.
 */
export function highestBriefcaseIn(file: string): number {
  const db = new DatabaseSync(file, { readOnly: true });
  try {
    // The tables of instances as ECDb lists them, except those that are virtual to ECDb (type 4) or to SQLite. Its own tables
    // (`ec_…`) and those of transactions have ids of another kind.
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
  // Only an integer primary key is the id itself, and indexed.
  const [key] = keys;
  if (keys.length !== 1 || key?.type.toUpperCase() !== 'INTEGER') return 0n;
  const query = db.prepare(`select max(rowid) as id from ${quoted}`);
  query.setReadBigInts(true);
  return (query.get()?.['id'] as bigint | null | undefined) ?? 0n;
}
