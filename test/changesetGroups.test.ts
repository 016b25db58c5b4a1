import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { test } from 'node:test';
import { ChangesetGroupState, ContainingChanges } from '@itwin/imodels-client-management';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import type { WireError } from './support/api.ts';
import { all, changesetIdOf, makeIModel, workFolder, type MadeIModel } from './support/clients.ts';
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

  test('accept changesets while open, are completed once, and are not cloned', async () => {
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
    const backwards = await context.api.get(`/imodels/${made.id}/changesets?$orderBy=index desc`);
    assert.deepEqual(
      (backwards.body as { changesets: { groupId: string | null }[] }).changesets.map(({ groupId }) => groupId),
      listed.map(({ groupId }) => groupId).reverse(),
    );
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

  test('are closed as timed out when no changeset joins them for long', async () => {
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

  test('are listed in pages and read by id; unknown ones answer ChangesetGroupNotFound', async () => {
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
