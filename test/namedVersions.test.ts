import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test } from 'node:test';
import {
  NamedVersionOrderByProperty,
  NamedVersionState,
  OrderByOperator,
  type NamedVersionPropertiesForUpdate,
} from '@itwin/imodels-client-management';
import type { WireError } from './support/api.ts';
import { all, makeIModel, type MadeIModel } from './support/clients.ts';
import { people } from './support/server.ts';
import { onEachDatabase } from './support/suite.ts';

onEachDatabase('Named versions', {}, (context) => {
  const as = () => ({ authorization: context.olivia.authorization });
  const create = (made: MadeIModel, index: number, name: string, description?: string) =>
    context.olivia.client.namedVersions.create({
      ...as(),
      iModelId: made.id,
      namedVersionProperties: {
        name,
        ...(description !== undefined && { description }),
        ...(index > 0 && { changesetId: made.changesets[index - 1]?.id ?? '' }),
      },
    });

  test('name a changeset, or the baseline, and link to creator and changeset', async () => {
    const made = await makeIModel(context.olivia, context.iTwinId, { changesets: 2 });
    const onSecond = await create(made, 2, 'Second', 'the second one');
    assert.deepEqual(
      [
        onSecond.name,
        onSecond.displayName,
        onSecond.description,
        onSecond.changesetId,
        onSecond.changesetIndex,
        onSecond.state,
      ],
      ['Second', 'Second', 'the second one', made.changesets[1]?.id, 2, 'visible'],
    );
    assert.deepEqual(onSecond.application, { id: 'suite', name: 'Test suite' });
    assert.equal((await onSecond.getCreator())?.id, people.olivia.id);
    assert.equal((await onSecond.getChangeset())?.index, 2);
    const onBaseline = await create(made, 0, 'Start');
    assert.deepEqual(
      [onBaseline.changesetId, onBaseline.changesetIndex, onBaseline._links.changeset, onBaseline.description],
      [null, 0, null, null],
    );
    const found = await context.olivia.client.namedVersions.getSingle({
      ...as(),
      iModelId: made.id,
      namedVersionId: onSecond.id,
    });
    assert.equal(found.name, 'Second');
    assert.equal(
      (await context.olivia.client.users.getSingle({ ...as(), iModelId: made.id, userId: people.olivia.id })).statistics
        .createdVersionsCount,
      2,
    );
  });

  test('appear at their changeset at once, and have a checkpoint that can be requested', async () => {
    const made = await makeIModel(context.olivia, context.iTwinId, { changesets: 2 });
    const version = await create(made, 1, 'First');
    const changeset = await context.olivia.client.changesets.getSingle({
      ...as(),
      iModelId: made.id,
      changesetIndex: 1,
    });
    assert.equal((await changeset.getNamedVersion())?.id, version.id);
    const listed = await all(context.olivia.client.changesets.getRepresentationList({ ...as(), iModelId: made.id }));
    assert.deepEqual(
      listed.map(({ _links }) => _links.namedVersion?.href.endsWith(`/namedversions/${version.id}`) ?? false),
      [true, false],
    );
    const checkpoint = await context.olivia.client.checkpoints.getSingle({
      ...as(),
      iModelId: made.id,
      namedVersionId: version.id,
    });
    assert.deepEqual(
      [checkpoint.changesetId, checkpoint.changesetIndex, checkpoint.state, checkpoint.directoryAccessInfo],
      [made.changesets[0]?.id, 1, 'notGenerated', null],
    );
  });

  test('are listed by index or time, by name, state and search', async () => {
    const made = await makeIModel(context.olivia, context.iTwinId, { changesets: 3 });
    for (const [index, name] of [
      [3, 'Milestone 1'],
      [1, 'Sketch'],
      [0, 'Empty, for Searching'],
      [2, 'milestone 2'],
    ] as const)
      await create(made, index, name);
    const [hidden] = await all(
      context.olivia.client.namedVersions.getMinimalList({ ...as(), iModelId: made.id, urlParams: { name: 'Sketch' } }),
    );
    await context.olivia.client.namedVersions.update({
      ...as(),
      iModelId: made.id,
      namedVersionId: hidden?.id ?? '',
      namedVersionProperties: { state: NamedVersionState.Hidden },
    });
    const list = async (urlParams: object): Promise<string[]> =>
      (
        await all(context.olivia.client.namedVersions.getRepresentationList({ ...as(), iModelId: made.id, urlParams }))
      ).map(({ name }) => name);
    const byIndex = ['Empty, for Searching', 'Sketch', 'milestone 2', 'Milestone 1'];
    assert.deepEqual(
      await list({ $top: 2, $orderBy: { property: NamedVersionOrderByProperty.ChangesetIndex } }),
      byIndex,
    );
    assert.deepEqual(
      await list({
        $top: 1,
        $orderBy: { property: NamedVersionOrderByProperty.ChangesetIndex, operator: OrderByOperator.Descending },
      }),
      byIndex.toReversed(),
    );
    const byTime = ['Milestone 1', 'Sketch', 'Empty, for Searching', 'milestone 2'];
    assert.deepEqual(await list({ $orderBy: { property: NamedVersionOrderByProperty.CreatedDateTime } }), byTime);
    const times = (
      await all(
        context.olivia.client.namedVersions.getRepresentationList({
          ...as(),
          iModelId: made.id,
          urlParams: { $orderBy: { property: NamedVersionOrderByProperty.CreatedDateTime } },
        }),
      )
    ).map(({ createdDateTime }) => Date.parse(createdDateTime));
    for (let n = 1; n < times.length; n++) assert.ok((times[n] as number) > (times[n - 1] as number));
    assert.deepEqual(await list({ $search: 'STONE 1' }), ['Milestone 1']);
    assert.deepEqual(await list({ $search: 'for search' }), ['Empty, for Searching']);
    assert.deepEqual(await list({ state: NamedVersionState.Hidden }), ['Sketch']);
    assert.deepEqual(await list({ name: 'nothing' }), []);
  });

  test('keep properties that an update does not name, including the state', async () => {
    const made = await makeIModel(context.olivia, context.iTwinId);
    const version = await create(made, 0, 'Before', 'old');
    const change = (namedVersionProperties: NamedVersionPropertiesForUpdate) =>
      context.olivia.client.namedVersions.update({
        ...as(),
        iModelId: made.id,
        namedVersionId: version.id,
        namedVersionProperties,
      });
    assert.equal((await change({ state: NamedVersionState.Hidden })).state, 'hidden');
    const described = await change({ description: 'new' });
    assert.deepEqual([described.name, described.description, described.state], ['Before', 'new', 'hidden']);
    const renamed = await change({ name: 'After' });
    assert.deepEqual(
      [renamed.name, renamed.displayName, renamed.description, renamed.state],
      ['After', 'After', 'new', 'hidden'],
    );
    const nothing = await context.api.patch(`/imodels/${made.id}/namedversions/${version.id}`, {});
    assert.deepEqual((nothing.body as WireError).error.details?.[0], {
      code: 'MissingRequiredProperty',
      message:
        "Required property is missing. At least one of the following properties must be provided: 'name', 'description', 'state'.",
    });
  });

  test('are not cloned', async () => {
    const made = await makeIModel(context.olivia, context.iTwinId, { changesets: 1 });
    await create(made, 1, 'Left behind');
    const clone = await context.olivia.client.iModels.clone({
      ...as(),
      iModelId: made.id,
      iModelProperties: { iTwinId: context.iTwinId, name: randomUUID() },
    });
    assert.deepEqual(
      await all(context.olivia.client.namedVersions.getMinimalList({ ...as(), iModelId: clone.id })),
      [],
    );
    const changeset = await context.olivia.client.changesets.getSingle({
      ...as(),
      iModelId: clone.id,
      changesetIndex: 1,
    });
    assert.equal(changeset._links.namedVersion, null);
    assert.equal((await create({ ...made, id: clone.id }, 1, 'Left behind')).changesetIndex, 1);
  });

  test('invalid named versions are refused', async () => {
    const made = await makeIModel(context.olivia, context.iTwinId, { changesets: 2 });
    await create(made, 1, 'Taken');
    const post = (body: object) => context.api.post(`/imodels/${made.id}/namedversions`, body);
    const codes = async (body: object): Promise<[number, string]> => {
      const answer = await post(body);
      return [answer.status, (answer.body as WireError).error.code];
    };
    assert.deepEqual(await codes({ name: 'Taken', changesetId: made.changesets[1]?.id }), [409, 'NamedVersionExists']);
    assert.deepEqual(await codes({ name: 'Other', changesetId: made.changesets[0]?.id }), [
      409,
      'NamedVersionOnChangesetExists',
    ]);
    assert.deepEqual(await codes({ name: 'Other', changesetId: 'f'.repeat(40) }), [404, 'ChangesetNotFound']);
    assert.deepEqual((await post({ name: 'n'.repeat(256) })).body, {
      error: {
        code: 'InvalidiModelsRequest',
        message: 'Cannot create Named Version.',
        details: [
          {
            code: 'InvalidValue',
            message: "Provided 'name' is not valid. The value exceeds allowed 255 characters.",
            target: 'name',
          },
        ],
      },
    });
    for (const id of [randomUUID(), 'invalidId']) {
      const answer = await context.api.get(`/imodels/${made.id}/namedversions/${id}`);
      assert.deepEqual(
        [answer.status, answer.body],
        [404, { error: { code: 'NamedVersionNotFound', message: 'Requested Named Version is not available.' } }],
      );
    }
  });
});
