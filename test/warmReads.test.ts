import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { makeIModel } from './support/clients.ts';
import { statementsOf } from './support/plans.ts';
import { people } from './support/server.ts';
import { onEachDatabase } from './support/suite.ts';
import { openConnection, type Execution } from '../apps/server/src/db/sqlite/connection.ts';
import { KeptRows } from '../apps/server/src/db/sqlite/keptRows.ts';
import { until } from './support/until.ts';
import { userOfEntry } from '../apps/server/src/access/directory.ts';
import { Users } from '../apps/server/src/users/users.ts';

/** The texts of the statements that work executes. */
async function textsOf(work: () => Promise<unknown>): Promise<string[]> {
  return (await statementsOf(work)).map(({ sql }) => sql);
}

/** The statements that change rows. */
function writesOf(texts: readonly string[]): string[] {
  return texts.filter((sql) => /\b(insert into|update\s+"|delete from)/i.test(sql));
}

onEachDatabase('A read of a known user', {}, (context) => {
  test('writes nothing, and executes the same statements each time', async () => {
    const { api } = context;
    const { id } = await makeIModel(context.olivia, context.iTwinId, { changesets: 1 });
    for (const path of [`/imodels/${id}`, `/imodels/${id}/changesets/1`, `/imodels?iTwinId=${context.iTwinId}`]) {
      const read = async (): Promise<void> => assert.equal((await api.get(path)).status, 200);
      await read();
      const first = await textsOf(read);
      const second = await textsOf(read);
      assert.deepEqual(writesOf([...first, ...second]), []);
      assert.ok(first.length > 0);
      assert.deepEqual(second, first);
    }
  });

  test('writes nothing on a server that has not seen the user, or has forgotten the user', async () => {
    const { database } = context.server.services;
    const { id } = await makeIModel(context.olivia, context.iTwinId);
    await context.api.get(`/imodels/${id}`);
    const user = userOfEntry(people.olivia);
    const before = await database.db.selectFrom('imodel_user').selectAll().where('imodel_id', '=', id).execute();
    const users = new Users(database.db);
    const statements = await textsOf(async () => {
      await users.remember(user);
      await users.connect(id, user.id);
    });
    assert.deepEqual(writesOf(statements), []);
    assert.deepEqual(
      await database.db.selectFrom('imodel_user').selectAll().where('imodel_id', '=', id).execute(),
      before,
    );
    assert.equal((await textsOf(() => users.remember(user))).length, 0);
  });

  test('writes what differs from what is stored', async () => {
    const { database } = context.server.services;
    const user = { ...userOfEntry(people.olivia), surname: 'Renamed' };
    const users = new Users(database.db);
    assert.equal(writesOf(await textsOf(() => users.remember(user))).length, 1);
    assert.equal((await users.find(user.id))?.surname, 'Renamed');

    const { id } = await makeIModel(context.olivia, context.iTwinId);
    await context.api.get(`/imodels/${id}`);
    const hourAgo = Date.now() - 3_600_000;
    await database.db.updateTable('imodel_user').set({ last_access_at: hourAgo }).where('imodel_id', '=', id).execute();
    await users.connect(id, user.id);
    const { last_access_at: last } = await database.db
      .selectFrom('imodel_user')
      .select('last_access_at')
      .where('imodel_id', '=', id)
      .where('user_id', '=', user.id)
      .executeTakeFirstOrThrow();
    assert.ok(Number(last) > hourAgo);
  });
});

test('kept rows are those of the database after each commit, of this process and of another one', async () => {
  const folder = await mkdtemp(path.join(tmpdir(), 'offshoot-kept-'));
  const file = path.join(folder, 'kept.db');
  const changing = openConnection(file, 'writer');
  changing.script('create table t (a integer); insert into t values (1)');
  const reader = openConnection(file, 'reader');
  const writer = { turns: 0 };
  const kept = new KeptRows(reader, writer);
  const read = (): Execution => kept.execute('select a from t where a > ?', [0]);
  try {
    const first = read();
    assert.deepEqual(first.rows, [{ a: 1 }]);
    assert.equal(kept.execute('select a from t where a > ?', [1]).rows.length, 0);
    changing.script('update t set a = 2');
    writer.turns++;
    assert.deepEqual(read().rows, [{ a: 2 }]);
    // Without a turn of this process, as if another process had committed.
    changing.script('update t set a = 3');
    await until('the new row', () => read().rows.find((row) => (row as { a: number }).a === 3));
    assert.equal(read(), read());
  } finally {
    reader.close();
    changing.close();
    await rm(folder, { recursive: true });
  }
});
