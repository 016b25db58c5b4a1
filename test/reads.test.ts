import assert from 'node:assert/strict';
import { test } from 'node:test';
import { time } from '../apps/server/src/api/schemas.ts';
import type { Api } from './support/api.ts';
import { makeIModel, pushMore } from './support/clients.ts';
import { statementsOf } from './support/plans.ts';
import { people } from './support/server.ts';
import { onEachDatabase } from './support/suite.ts';

/** What the reads below need. Jobs, accounts, rate limits and the places of files have tables of their own. */
const ofReads = /\bfrom "?(imodel|itwin|owner|role|changeset|history|grouped_changeset|named_version|checkpoint)\b/;

onEachDatabase('Reads', {}, (context) => {
  /** The number of statements of a request, after another one like it has filled the caches. */
  const countOf = async (api: Api, path: string): Promise<number> => {
    assert.equal((await api.get(path)).status, 200);
    const statements = await statementsOf(async () => assert.equal((await api.get(path)).status, 200));
    return statements.filter(({ sql }) => sql.startsWith('select') && ofReads.test(sql)).length;
  };

  test('the number of statements of a read does not depend on the number of rows', async () => {
    const iTwinId = await context.server.iTwin();
    const made = await makeIModel(context.olivia, iTwinId, { changesets: 2 });
    const counts = async (): Promise<number[]> => {
      const numbers: number[] = [];
      for (const path of [
        `/imodels/${made.id}`,
        `/imodels/${made.id}/changesets/1`,
        `/imodels/${made.id}/changesets/${made.changesets[0]?.id ?? ''}`,
        `/imodels/${made.id}/changesets`,
        `/imodels?iTwinId=${iTwinId}`,
      ])
        numbers.push(await countOf(context.api, path));
      return numbers;
    };
    // Access; then the changeset, its group, version and checkpoint; of a minimal page the changesets and their groups.
    const expected = [1, 5, 5, 3, 2];
    assert.deepEqual(await counts(), expected);
    await pushMore(context.olivia, made, 3);
    await makeIModel(context.olivia, iTwinId);
    assert.deepEqual(await counts(), expected);
  });

  test('synchronization info shortens only the pages that show it', async () => {
    const made = await makeIModel(context.olivia, await context.server.iTwin(), { changesets: 3 });
    const info = JSON.stringify({ taskId: 'x'.repeat(2_500_000), changedFiles: null });
    await context.server.services.database.db
      .updateTable('changeset')
      .set({ synchronization_info: info })
      .where(
        'id',
        'in',
        made.changesets.map(({ id }) => id),
      )
      .execute();
    const count = async (prefer: Record<string, string>): Promise<number> =>
      ((await context.api.get(`/imodels/${made.id}/changesets`, prefer)).body as { changesets: object[] }).changesets
        .length;
    assert.deepEqual([await count({}), await count({ prefer: 'return=representation' })], [3, 1]);
  });

  test('pages of every size and order have the same changesets and iModels', async () => {
    const iTwinId = await context.server.iTwin();
    const made = await makeIModel(context.olivia, iTwinId, { changesets: 5 });
    const ids = [made.id];
    for (let n = 0; n < 3; n++) ids.push((await makeIModel(context.olivia, iTwinId)).id);
    const indexes = async (query: string): Promise<number[]> =>
      (
        (await context.api.get(`/imodels/${made.id}/changesets?${query}`)).body as { changesets: { index: number }[] }
      ).changesets.map(({ index }) => index);
    assert.deepEqual(await indexes('$top=2'), [1, 2]);
    assert.deepEqual(await indexes('$top=3'), [1, 2, 3]);
    assert.deepEqual(await indexes('$top=3&$orderBy=index desc'), [5, 4, 3]);
    assert.deepEqual(await indexes('$top=2&$skip=1'), [2, 3]);
    assert.deepEqual(await indexes('$top=2&$skip=3&$orderBy=index desc'), [2, 1]);
    assert.deepEqual(await indexes('afterIndex=1&lastIndex=3'), [2, 3]);
    assert.deepEqual(await indexes('afterIndex=5'), []);
    const listed = async (query: string): Promise<string[]> =>
      (
        (await context.api.get(`/imodels?iTwinId=${iTwinId}&${query}`)).body as { iModels: { id: string }[] }
      ).iModels.map(({ id }) => id);
    const newestFirst = ids.toReversed();
    assert.deepEqual(await listed('$top=2&$orderBy=createdDateTime'), ids.slice(0, 2));
    assert.deepEqual(await listed('$top=4&$orderBy=createdDateTime'), ids);
    assert.deepEqual(await listed('$top=3&$orderBy=createdDateTime desc'), newestFirst.slice(0, 3));
    assert.deepEqual(await listed('$top=1&$skip=1&$orderBy=createdDateTime desc'), newestFirst.slice(1, 2));
  });

  test('a permission that is removed is refused in the very next request, on this server and on another', async () => {
    const { server } = context;
    const iTwinId = await server.iTwin();
    const made = await makeIModel(context.olivia, iTwinId, { changesets: 1 });
    await server.grant(iTwinId, 'max', ['imodels_read']);
    // One server owns an embedded database.
    const second = context.engine === 'postgres' ? await server.installation.start() : undefined;
    try {
      const readers = [await server.as('max'), ...(second === undefined ? [] : [await second.as('max')])];
      const paths = [`/imodels/${made.id}`, `/imodels/${made.id}/changesets`, `/imodels/${made.id}/changesets/1`];
      const statuses = async (): Promise<number[]> => {
        const found: number[] = [];
        for (const reader of readers) for (const path of paths) found.push((await reader.get(path)).status);
        return found;
      };
      assert.deepEqual(new Set(await statuses()), new Set([200]));
      const removed = await context.api.delete(`/accesscontrol/itwins/${iTwinId}/members/users/${people.max.id}`);
      assert.equal(removed.status, 204);
      assert.deepEqual(new Set(await statuses()), new Set([404]));
    } finally {
      await second?.close();
    }
  });
});

test('times are written as ISO 8601, on any day from the first to the last that a date can have', () => {
  const days = [0, 1, 59, 365, 11_016, 20_785, 106_751, 2_932_896, 2_932_897, -1, -719_529, -100_000_000, 99_999_999];
  for (const day of [...days, ...days])
    for (const rest of [0, 1, 999, 59_999, 60_000, 3_599_999, 43_200_010, 86_399_999]) {
      const ms = day * 86_400_000 + rest;
      assert.equal(time(ms), new Date(ms).toISOString());
    }
  assert.throws(() => time(Number.NaN), RangeError);
});
