import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LockLevel, type ConflictingLocksError, type Lock, type LocksError } from '@itwin/imodels-client-authoring';
import type { WireError } from './support/api.ts';
import { all, makeIModel, newest, pushMore, type MadeIModel } from './support/clients.ts';
import { people } from './support/server.ts';
import { onEachDatabase } from './support/suite.ts';

onEachDatabase('Locks', {}, (context) => {
  const as = () => ({ authorization: context.olivia.authorization });

  async function setUp(changesets = 0) {
    const made = await makeIModel(context.olivia, context.iTwinId, { changesets });
    const acquire = async (): Promise<number> =>
      (await context.olivia.client.briefcases.acquire({ ...as(), iModelId: made.id })).briefcaseId;
    const [one, two] = [await acquire(), await acquire()];
    const update = (
      briefcaseId: number,
      locks: Partial<Record<'none' | 'shared' | 'exclusive', string[]>>,
      changesetId = made.changesets.at(-1)?.id ?? '',
    ): Promise<Lock> =>
      context.olivia.client.locks.update({
        ...as(),
        iModelId: made.id,
        briefcaseId,
        changesetId,
        lockedObjects: Object.entries(locks).map(([lockLevel, objectIds]) => ({
          lockLevel: lockLevel as LockLevel,
          objectIds,
        })),
      });
    return { made, one, two, acquire, update };
  }
  const list = (made: MadeIModel, urlParams: object = {}) =>
    all(context.olivia.client.locks.getList({ ...as(), iModelId: made.id, urlParams }));
  const patch = (made: MadeIModel, body: object) => context.api.patch(`/imodels/${made.id}/locks`, body);

  test('are acquired, listed by briefcase and level, and released', async () => {
    const { made, one, two, update } = await setUp();
    const taken = await update(one, { shared: ['0x1', '0xA'], exclusive: ['0x3'] });
    assert.deepEqual(taken, {
      briefcaseId: one,
      lockedObjects: [
        { lockLevel: 'shared', objectIds: ['0x1', '0xa'] },
        { lockLevel: 'exclusive', objectIds: ['0x3'] },
      ],
    });
    await update(two, { shared: ['0x1'] });
    assert.deepEqual(await list(made, { briefcaseId: one }), [taken]);
    assert.equal((await list(made)).length, 2);
    assert.deepEqual(await list(made, { lockLevel: LockLevel.Exclusive }), [
      { briefcaseId: one, lockedObjects: [{ lockLevel: 'exclusive', objectIds: ['0x3'] }] },
    ]);
    assert.deepEqual(await list(made, { briefcaseId: 500 }), []);
    assert.deepEqual(await update(one, { none: ['0x1', '0xa', '0x3'] }), { briefcaseId: one, lockedObjects: [] });
    assert.deepEqual(
      (await list(made)).map(({ briefcaseId }) => briefcaseId),
      [two],
    );
  });

  test('are shared by several briefcases or exclusive to one, and a conflict names the holders', async () => {
    const { made, one, two, acquire, update } = await setUp();
    const three = await acquire();
    await update(one, { shared: ['0x1'], exclusive: ['0x2'] });
    await update(two, { shared: ['0x1'] });
    await assert.rejects(
      update(three, { exclusive: ['0x1'], shared: ['0x2', '0x9'] }),
      (error: ConflictingLocksError) => {
        assert.equal(error.code, 'ConflictWithAnotherUser');
        assert.deepEqual(error.conflictingLocks, [
          { objectId: '0x1', lockLevel: 'shared', briefcaseIds: [one, two] },
          { objectId: '0x2', lockLevel: 'exclusive', briefcaseIds: [one] },
        ]);
        return true;
      },
    );
    // All or nothing: the free one was not acquired either.
    assert.deepEqual(await list(made, { briefcaseId: three }), []);
    await update(two, { none: ['0x1'] });
    assert.deepEqual((await update(one, { exclusive: ['0x1'] })).lockedObjects, [
      { lockLevel: 'exclusive', objectIds: ['0x1'] },
    ]);
    await update(one, { shared: ['0x1'] });
    await update(two, { shared: ['0x1'] });
  });

  test('released at a later changeset require a pull first', async () => {
    const { made, one, two, update } = await setUp(3);
    await update(one, { exclusive: ['0x5', '0x6'] }, made.changesets[0]?.id);
    await update(one, { none: ['0x5', '0x6'] }, made.changesets[2]?.id);
    await assert.rejects(
      update(two, { shared: ['0x5'], exclusive: ['0x6', '0x7'] }, made.changesets[1]?.id),
      (error: LocksError) => {
        assert.equal(error.code, 'NewerChangesExist');
        assert.deepEqual(error.objectIds, ['0x5', '0x6']);
        return true;
      },
    );
    await update(two, { exclusive: ['0x5'] }, made.changesets[2]?.id);
    // Releasing at an older changeset keeps the later one, and so does abandoning.
    await update(two, { none: ['0x5'] }, made.changesets[0]?.id);
    await assert.rejects(update(one, { shared: ['0x5'] }, made.changesets[1]?.id));
    const { client, authorization } = await newest(context.server);
    const releasedAfter = (afterChangesetIndex: number) =>
      all(client.locks.getReleasedLockList({ authorization, iModelId: made.id, urlParams: { afterChangesetIndex } }));
    assert.deepEqual(await releasedAfter(0), [{ lockLevel: 'exclusive', objectIds: ['0x5', '0x6'] }]);
    assert.deepEqual(await releasedAfter(3), []);
    assert.equal((await context.api.get(`/imodels/${made.id}/locks/released-locks`)).status, 422);
  });

  test('are refused in the order iModel, briefcase, changeset, locks', async () => {
    const { made, one } = await setUp(1);
    const lockedObjects = [{ lockLevel: 'none', objectIds: ['0x1'] }];
    const code = async (id: string, body: object): Promise<string> =>
      (
        (await context.api.patch(`/imodels/${encodeURIComponent(id)}/locks`, { lockedObjects, ...body }))
          .body as WireError
      ).error.code;
    assert.equal(await code('invalid iModel id', { briefcaseId: 0 }), 'iModelNotFound');
    assert.equal(await code(made.id, { briefcaseId: 0, changesetId: 'invalidId' }), 'BriefcaseNotFound');
    assert.equal(await code(made.id, { briefcaseId: one, changesetId: 'invalidId' }), 'ChangesetNotFound');
    const unheld = await patch(made, { briefcaseId: one, changesetId: '', lockedObjects });
    assert.deepEqual(
      [unheld.status, unheld.body],
      [404, { error: { code: 'LockNotFound', message: 'Requested Lock(s) is not available.', objectIds: ['0x1'] } }],
    );
  });

  test('are limited to 1,000 per request, each named once', async () => {
    const { made, one } = await setUp();
    const ids = (count: number): string[] => Array.from({ length: count }, (_, n) => `0x${(n + 1).toString(16)}`);
    const tooMany = await patch(made, {
      briefcaseId: one,
      changesetId: '',
      lockedObjects: [{ lockLevel: 'shared', objectIds: ids(1001) }],
    });
    assert.deepEqual(
      [tooMany.status, tooMany.body],
      [413, { error: { code: 'RequestTooLarge', message: "Provided 'objectIds' count exceeds the limit of 1000." } }],
    );
    const twice = await patch(made, {
      briefcaseId: one,
      changesetId: '',
      lockedObjects: [
        { lockLevel: 'shared', objectIds: ['0xa'] },
        { lockLevel: 'exclusive', objectIds: ['0xA'] },
      ],
    });
    assert.equal(twice.status, 422);
    assert.equal(
      (
        await patch(made, {
          briefcaseId: one,
          changesetId: '',
          lockedObjects: [{ lockLevel: 'shared', objectIds: ['x1'] }],
        })
      ).status,
      422,
    );
    assert.equal(
      (
        await patch(made, {
          briefcaseId: one,
          changesetId: '',
          lockedObjects: [{ lockLevel: 'exclusive', objectIds: ids(1000) }],
        })
      ).status,
      200,
    );
    // A page counts object ids: the locks of one briefcase continue over several pages.
    const pages = await list(made, { $top: 300 });
    assert.deepEqual(
      pages.map(({ lockedObjects }) => lockedObjects[0]?.objectIds.length),
      [300, 300, 300, 100],
    );
    assert.equal(new Set(pages.flatMap(({ lockedObjects }) => lockedObjects[0]?.objectIds)).size, 1000);
  });

  test('are released in pages until the last, and releasing none succeeds too', async () => {
    const { made, one, update } = await setUp(1);
    const ids = (from: number, count: number): string[] =>
      Array.from({ length: count }, (_, n) => `0x${(from + n).toString(16)}`);
    await update(one, { exclusive: ids(1, 1000) });
    await update(one, { shared: ids(5000, 201) });
    const { client, authorization } = await newest(context.server);
    const chunk = (changesetId: string) =>
      client.locks.releaseLocksChunk({ authorization, iModelId: made.id, briefcaseId: one, changesetId });
    const head = made.changesets[0]?.id ?? '';
    assert.deepEqual(await chunk(head), { isLastChunk: false });
    assert.deepEqual(await chunk(head), { isLastChunk: true });
    assert.deepEqual(await chunk(head), { isLastChunk: true });
    assert.deepEqual(await chunk(''), { isLastChunk: true });
    assert.deepEqual(await list(made), []);
    // Right after a push, with the id that was pushed a moment ago, as iTwin.js sends it.
    await pushMore(context.olivia, { ...made, briefcaseId: one }, 1);
    assert.deepEqual(await chunk(made.changesets.at(-1)?.id ?? ''), { isLastChunk: true });
  });

  test('are deleted with their briefcase, and are not cloned', async () => {
    const { made, one, two, update } = await setUp();
    await update(one, { exclusive: ['0x1'] });
    const clone = await context.olivia.client.iModels.clone({
      ...as(),
      iModelId: made.id,
      iModelProperties: { iTwinId: context.iTwinId, name: `clone of ${made.id}` },
    });
    assert.deepEqual(await list({ ...made, id: clone.id }), []);
    const { applications } = (
      await context.olivia.client.users.getSingle({ ...as(), iModelId: made.id, userId: people.olivia.id })
    ).statistics as unknown as { applications: object[] };
    assert.deepEqual(applications, [
      { id: 'suite', name: 'Test suite', ownsLocks: true, ownsExclusiveRootElementLock: true },
    ]);
    await context.olivia.client.briefcases.release({ ...as(), iModelId: made.id, briefcaseId: one });
    assert.deepEqual(await list(made), []);
    await update(two, { exclusive: ['0x1'] });
  });

  test('of another user can be released by a manager, and acquired by nobody', async () => {
    const { made, one, update } = await setUp();
    await update(one, { exclusive: ['0x1'] });
    await context.server.grant(context.iTwinId, 'max', ['imodels_write']);
    const max = await context.server.as('max');
    const release = { briefcaseId: one, changesetId: '', lockedObjects: [{ lockLevel: 'none', objectIds: ['0x1'] }] };
    assert.equal((await max.patch(`/imodels/${made.id}/locks`, release)).status, 403);
    assert.equal((await max.post(`/imodels/${made.id}/locks/release-chunk`, { briefcaseId: one })).status, 403);
    const admin = await context.server.as('admin');
    assert.equal(
      (
        await admin.patch(`/imodels/${made.id}/locks`, {
          ...release,
          lockedObjects: [{ lockLevel: 'shared', objectIds: ['0x1'] }],
        })
      ).status,
      403,
    );
    assert.equal((await admin.patch(`/imodels/${made.id}/locks`, release)).status, 200);
    assert.deepEqual(await list(made), []);
  });
});
