import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test } from 'node:test';
import type { WireError } from './support/api.ts';
import { all, makeIModel } from './support/clients.ts';
import { onEachDatabase } from './support/suite.ts';

onEachDatabase('Extended data', {}, (context) => {
  const as = () => ({ authorization: context.olivia.authorization });

  test('is attached once, by the user who pushed the changeset, and read by id, by index and as a list', async () => {
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
