import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { test } from 'node:test';
import { ChangesetGroupState, ContainingChanges } from '@itwin/imodels-client-management';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import type { WireError } from './support/api.ts';
import { all, changesetIdOf, makeIModel, newest, workFolder, type MadeIModel } from './support/clients.ts';
import { people } from './support/server.ts';
import { onEachDatabase } from './support/suite.ts';

onEachDatabase('Changeset groups', {}, (context) => {
  const as = () => ({ authorization: context.olivia.authorization });

  async function push(made: MadeIModel, groupId: string) {
    const work = workFolder();
    try {
      const bytes = randomBytes(50);
      const parentId = made.changesets.at(-1)?.id ?? '';
      const filePath = path.join(work.path, 'x.cs');
      writeFileSync(filePath, bytes);
      const id = changesetIdOf(parentId, bytes);
      const pushed = await context.olivia.client.changesets.create({
        ...as(),
        iModelId: made.id,
        changesetProperties: {
          id,
          parentId,
          briefcaseId: made.briefcaseId,
          filePath,
          groupId,
          containingChanges: ContainingChanges.Regular,
        },
      });
      made.changesets.push({ id, parentId, index: pushed.index, bytes });
      return pushed;
    } finally {
      work.remove();
    }
  }

  test('take changesets while they are open, are completed once, and stay out of clones', async () => {
    const made = await makeIModel(context.olivia, context.iTwinId, { changesets: 1 });
    const group = await context.olivia.client.changesetGroups.create({
      ...as(),
      iModelId: made.id,
      changesetGroupProperties: { description: 'one run' },
    });
    assert.deepEqual([group.state, group.description, group.creatorId], ['inProgress', 'one run', people.olivia.id]);
    assert.equal((await group.getCreator())?.id, people.olivia.id);
    assert.equal((await push(made, group.id)).groupId, group.id);
    const listed = await all(context.olivia.client.changesets.getMinimalList({ ...as(), iModelId: made.id }));
    assert.deepEqual(
      listed.map(({ groupId }) => groupId),
      [null, group.id],
    );
    const completed = await context.olivia.client.changesetGroups.update({
      ...as(),
      iModelId: made.id,
      changesetGroupId: group.id,
      changesetGroupProperties: { state: ChangesetGroupState.Completed },
    });
    assert.equal(completed.state, 'completed');
    const again = await context.api.patch(`/imodels/${made.id}/changesetgroups/${group.id}`, { state: 'completed' });
    assert.deepEqual(
      [again.status, again.body],
      [409, { error: { code: 'ChangesetGroupIsClosed', message: 'Requested Changeset Group is closed.' } }],
    );
    const late = await context.api.post(`/imodels/${made.id}/changesets`, {
      id: 'a'.repeat(40),
      parentId: made.changesets.at(-1)?.id,
      briefcaseId: made.briefcaseId,
      fileSize: 1,
      groupId: group.id,
    });
    assert.equal((late.body as WireError).error.code, 'ChangesetGroupIsClosed');
    const unknown = await context.api.post(`/imodels/${made.id}/changesets`, {
      id: 'a'.repeat(40),
      parentId: made.changesets.at(-1)?.id,
      briefcaseId: made.briefcaseId,
      fileSize: 1,
      groupId: 'invalid group id',
    });
    assert.equal((unknown.body as WireError).error.code, 'ChangesetGroupNotFound');

    const clone = await context.olivia.client.iModels.clone({
      ...as(),
      iModelId: made.id,
      iModelProperties: { iTwinId: context.iTwinId, name: randomUUID() },
    });
    assert.deepEqual(await all(context.olivia.client.changesetGroups.getList({ ...as(), iModelId: clone.id })), []);
    const cloned = await all(context.olivia.client.changesets.getMinimalList({ ...as(), iModelId: clone.id }));
    assert.deepEqual(
      cloned.map(({ groupId }) => groupId),
      [null, null],
    );
  });

  test('that no changeset joins for long are closed as timed out', async () => {
    const made = await makeIModel(context.olivia, context.iTwinId, { changesets: 1 });
    const create = () =>
      context.olivia.client.changesetGroups.create({
        ...as(),
        iModelId: made.id,
        changesetGroupProperties: { description: 'forgotten' },
      });
    const [idle, used] = [await create(), await create()];
    const { db } = context.server.services.database;
    const longAgo = Date.now() - 8 * 24 * 3_600_000;
    await db
      .updateTable('changeset_group')
      .set({ created_at: longAgo })
      .where('id', 'in', [idle.id, used.id])
      .execute();
    await push(made, used.id);
    await context.server.services.collector.runOnce();
    const stateOf = async (id: string) =>
      (await context.olivia.client.changesetGroups.getSingle({ ...as(), iModelId: made.id, changesetGroupId: id }))
        .state;
    assert.deepEqual([await stateOf(idle.id), await stateOf(used.id)], ['timedOut', 'inProgress']);
    await assert.rejects(push(made, idle.id), (error: { code?: string }) => error.code !== undefined);
  });

  test('are listed by pages and read by id; others are not there', async () => {
    const made = await makeIModel(context.olivia, context.iTwinId);
    const ids: string[] = [];
    for (const description of ['a', 'b', 'c'])
      ids.push(
        (
          await context.olivia.client.changesetGroups.create({
            ...as(),
            iModelId: made.id,
            changesetGroupProperties: { description },
          })
        ).id,
      );
    assert.deepEqual(
      (
        await all(context.olivia.client.changesetGroups.getList({ ...as(), iModelId: made.id, urlParams: { $top: 2 } }))
      ).map(({ id }) => id),
      ids,
    );
    assert.equal(
      (
        await context.olivia.client.changesetGroups.getSingle({
          ...as(),
          iModelId: made.id,
          changesetGroupId: ids[1] ?? '',
        })
      ).description,
      'b',
    );
    for (const id of [randomUUID(), 'invalid group id']) {
      const answer = await context.api.get(`/imodels/${made.id}/changesetgroups/${encodeURIComponent(id)}`);
      assert.deepEqual(
        [answer.status, answer.body],
        [404, { error: { code: 'ChangesetGroupNotFound', message: 'Requested Changeset Group is not available.' } }],
      );
    }
    const other = await context.api.patch(`/imodels/${made.id}/changesetgroups/${ids[0] ?? ''}`, { state: 'abc' });
    assert.deepEqual((other.body as WireError).error.details, [
      {
        code: 'InvalidValue',
        message: "'abc' is not a valid 'state' value. Valid 'state' values are: 'completed'.",
        target: 'state',
      },
    ]);
  });
});

onEachDatabase('Extended data', {}, (context) => {
  const as = () => ({ authorization: context.olivia.authorization });

  test('is attached once, by whoever pushed the changeset, and read by id, index and list', async () => {
    const made = await makeIModel(context.olivia, context.iTwinId, { changesets: 3 });
    const data = { changedFiles: ['A.dgn'], nested: { ü: [1, null] } };
    const created = await context.olivia.client.changesetExtendedData.create({
      ...as(),
      iModelId: made.id,
      changesetId: made.changesets[1]?.id ?? '',
      changesetExtendedDataProperties: { data },
    });
    assert.deepEqual([created.changesetId, created.changesetIndex, created.data], [made.changesets[1]?.id, 2, data]);
    for (const name of [{ changesetIndex: 2 }, { changesetId: made.changesets[1]?.id ?? '' }])
      assert.deepEqual(
        (await context.olivia.client.changesetExtendedData.getSingle({ ...as(), iModelId: made.id, ...name })).data,
        data,
      );
    await context.olivia.client.changesetExtendedData.create({
      ...as(),
      iModelId: made.id,
      changesetIndex: 1,
      changesetExtendedDataProperties: { data: [] as never },
    });
    const listed = await all(
      context.olivia.client.changesetExtendedData.getList({ ...as(), iModelId: made.id, urlParams: { $top: 1 } }),
    );
    assert.deepEqual(
      listed.map(({ changesetIndex }) => changesetIndex),
      [1, 2],
    );

    const post = (changeset: string | number, body: unknown, who = context.api) =>
      who.post(`/imodels/${made.id}/changesets/${changeset}/extendeddata`, body);
    const base64 = (text: string): string => Buffer.from(text).toString('base64');
    const codeOf = async (answer: ReturnType<typeof post>): Promise<string> =>
      ((await answer).body as WireError).error.code;
    assert.equal(await codeOf(post(2, { data: base64('{}') })), 'ChangesetExtendedDataExists');
    assert.equal(await codeOf(post(9, { data: base64('{}') })), 'ChangesetNotFound');
    await context.server.grant(context.iTwinId, 'max', ['imodels_write']);
    assert.equal(
      await codeOf(post(3, { data: base64('{}') }, await context.server.as('max'))),
      'InsufficientPermissions',
    );
    const none = await context.api.get(`/imodels/${made.id}/changesets/3/extendeddata`);
    assert.deepEqual(
      [none.status, none.body],
      [
        404,
        {
          error: {
            code: 'ChangesetExtendedDataNotFound',
            message: 'Requested Changeset Extended Data is not available.',
          },
        },
      ],
    );
    for (const bad of ['', 'not base64!', base64('{"cut'), base64(`"${'x'.repeat(204_800)}"`)])
      assert.equal((await post(3, { data: bad })).status, 422, bad.slice(0, 20));
    assert.equal((await post(3, { data: base64(`"${'x'.repeat(204_798)}"`) })).status, 201);

    const clone = await context.olivia.client.iModels.clone({
      ...as(),
      iModelId: made.id,
      iModelProperties: { iTwinId: context.iTwinId, name: randomUUID() },
    });
    assert.deepEqual(
      await all(context.olivia.client.changesetExtendedData.getList({ ...as(), iModelId: clone.id })),
      [],
    );
  });
});

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

  test('favorites are each user’s own, added and removed any number of times', async () => {
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

  test('recents come latest first, move to the front when used again, and are 25 at most', async () => {
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

onEachDatabase('The quotas of briefcases', { briefcases: { perUser: 7, perMinute: 5 } }, (context) => {
  test('hold back the sixth in a minute and the eighth in all, released ones not counted', async (t) => {
    const made = await makeIModel(context.olivia, context.iTwinId);
    const acquire = () => context.api.post(`/imodels/${made.id}/briefcases`, {});
    for (let n = 0; n < 5; n++) assert.equal((await acquire()).status, 201);
    const sixth = await acquire();
    assert.deepEqual(
      [sixth.status, sixth.body],
      [
        429,
        { error: { code: 'RateLimitExceeded', message: 'Maximum number of briefcases per user per minute reached.' } },
      ],
    );
    assert.match(sixth.headers.get('retry-after') ?? '', /^[1-9]\d?$/);
    assert.equal((await (await context.server.as('admin')).post(`/imodels/${made.id}/briefcases`, {})).status, 201);
    assert.equal((await context.api.delete(`/imodels/${made.id}/briefcases/2`)).status, 204);
    assert.equal((await acquire()).status, 201);
    const later = Date.now() + 61_000;
    t.mock.method(Date, 'now', () => later);
    assert.equal((await acquire()).status, 201);
    assert.equal((await acquire()).status, 201);
    const eighth = await acquire();
    assert.equal(eighth.status, 422);
    assert.deepEqual((eighth.body as WireError).error, {
      code: 'InvalidiModelsRequest',
      message: 'Cannot acquire Briefcase.',
      details: [
        {
          code: 'ResourceQuotaExceeded',
          message: 'Maximum number of Briefcases per user limit reached.',
          innerError: { code: 'MaximumNumberOfBriefcasesPerUser' },
        },
      ],
    });
  });
});
