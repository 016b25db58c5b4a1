import assert from 'node:assert/strict';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { describe, test } from 'node:test';
import { openDatabase } from '../apps/server/src/db/database.ts';
import { Installation } from './support/server.ts';

describe('Deleting a row', () => {
  test('finds the rows that refer to it by a seek, whatever their number', async () => {
    const installation = await Installation.create('sqlite');
    await (await openDatabase(installation.config())).close();
    const db = new DatabaseSync(path.join(installation.dataDir, 'offshoot.db'), { readOnly: true });
    try {
      const tables = db.prepare("select name from sqlite_master where type = 'table'").all() as { name: string }[];
      const unindexed = tables.flatMap(({ name: table }) => {
        const indexes = (
          db
            .prepare(
              'select l.name, l.partial, m.sql from pragma_index_list(?) l left join sqlite_master m on m.name = l.name',
            )
            .all(table) as { name: string; partial: number; sql: string | null }[]
        ).flatMap(({ name, partial, sql }) => {
          const columns = (
            db.prepare('select name from pragma_index_info(?) order by seqno').all(name) as { name: string }[]
          ).map((column) => column.name);
          // A database uses a partial index only if the condition of the search implies that of the index.
          const condition = sql === null ? undefined : / where (\w+) is not null$/i.exec(sql)?.[1];
          return partial === 0 || condition === columns[0] ? [columns] : [];
        });
        const keys = new Map<number, string[]>();
        for (const { id, from } of db
          .prepare('select id, "from" from pragma_foreign_key_list(?) order by id, seq')
          .all(table) as { id: number; from: string }[])
          keys.set(id, [...(keys.get(id) ?? []), from]);
        return [...keys.values()]
          .filter(
            (columns) =>
              !indexes.some((index) => columns.every((column) => index.slice(0, columns.length).includes(column))),
          )
          .map((columns) => `${table} (${columns.join(', ')})`);
      });
      assert.deepEqual(unindexed, []);
      const plan = db
        .prepare("explain query plan select key from blob where key in ('a', 'b')")
        .all()
        .map(({ detail }) => detail);
      assert.match(String(plan[0]), /SEARCH blob USING .*INDEX blob_key/, 'a file of the store is found by its key');
    } finally {
      db.close();
      installation.remove();
    }
  });
});
