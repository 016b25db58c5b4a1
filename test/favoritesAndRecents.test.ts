import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test } from 'node:test';
import { all, makeIModel, newest, type MadeIModel } from './support/clients.ts';
import { onEachDatabase } from './support/suite.ts';

onEachDatabase('Favorites and recents', {}, (context) => {
  async function names(
    kind: 'favoriteIModels' | 'recentIModels',
    $top = 100,
    who: 'olivia' | 'admin' = 'olivia',
  ): Promise<string[]> {
    const { client, authorization } = await newest(context.server, who);
    const params = { authorization, urlParams: { iTwinId: context.iTwinId, $top } };
    const full = await all(client[kind].getRepresentationList(params));
    assert.deepEqual(
      (await all(client[kind].getMinimalList(params))).map(({ id }) => id),
      full.map(({ id }) => id),
    );
    return full.map(({ name }) => name);
  }

  test('favorites belong to one user, and adding and removing them is idempotent', async () => {
    const made = await Promise.all(
      ['f1', 'f2', 'f3'].map((name) => makeIModel(context.olivia, context.iTwinId, { name })),
    );
    const { client, authorization } = await newest(context.server);
    for (const { id } of [...made, ...made.slice(0, 1)])
      await client.favoriteIModels.add({ authorization, iModelId: id });
    assert.deepEqual(await names('favoriteIModels', 2), ['f1', 'f2', 'f3']);
    assert.deepEqual(await names('favoriteIModels', 100, 'admin'), []);
    for (let n = 0; n < 2; n++) await client.favoriteIModels.remove({ authorization, iModelId: made[1]?.id ?? '' });
    await context.api.delete(`/imodels/${made[2]?.id}`);
    assert.deepEqual(await names('favoriteIModels'), ['f1']);
    assert.equal((await context.api.put(`/imodels/favorites/${randomUUID()}`)).status, 404);
    assert.equal((await context.api.get('/imodels/favorites')).status, 422);
  });

  test('recents are ordered latest first, move to the front when used again, and number at most 25', async () => {
    const made: MadeIModel[] = [];
    for (let n = 0; n < 27; n++) made.push(await makeIModel(context.olivia, context.iTwinId, { name: `r${n}` }));
    const { client, authorization } = await newest(context.server);
    for (const { id } of made) await client.recentIModels.add({ authorization, iModelId: id });
    assert.deepEqual(
      await names('recentIModels', 10),
      Array.from({ length: 25 }, (_, n) => `r${26 - n}`),
    );
    await client.recentIModels.add({ authorization, iModelId: made[5]?.id ?? '' });
    assert.deepEqual((await names('recentIModels')).slice(0, 3), ['r5', 'r26', 'r25']);
    await client.recentIModels.remove({ authorization, iModelId: made[5]?.id ?? '' });
    assert.equal((await names('recentIModels')).length, 24);
  });
});
