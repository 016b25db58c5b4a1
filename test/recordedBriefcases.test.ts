import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import type { Api, WireError } from './support/api.ts';
import { changesetIdOf, makeIModel } from './support/clients.ts';
import { onEachDatabase } from './support/suite.ts';

interface Pushed {
  status: number;
  code: string | undefined;
  id: string;
  complete: () => ReturnType<Api['patch']>;
}

onEachDatabase('Recorded briefcases of an import', {}, (context) => {
  const as = () => ({ authorization: context.olivia.authorization });

  async function acquire(iModelId: string, more: object = {}): Promise<number> {
    const { status, body } = await context.api.post(`/imodels/${iModelId}/briefcases`, more);
    assert.equal(status, 201, JSON.stringify(body));
    return (body as { briefcase: { briefcaseId: number } }).briefcase.briefcaseId;
  }

  /** Announces a push and uploads its file. */
  async function begin(
    iModelId: string,
    briefcaseId: number,
    parentId: string,
    recordedBriefcaseId?: number | null,
    api = context.api,
  ): Promise<Pushed> {
    const bytes = randomBytes(100);
    const id = changesetIdOf(parentId, bytes);
    const { status, body } = await api.post(`/imodels/${iModelId}/changesets`, {
      id,
      parentId,
      briefcaseId,
      fileSize: bytes.length,
      ...(recordedBriefcaseId !== undefined && { recordedBriefcaseId }),
    });
    const { changeset, error } = body as Partial<WireError> & {
      changeset?: { briefcaseId: number; _links: { upload: { href: string }; complete: { href: string } } };
    };
    if (changeset === undefined)
      return { status, code: error?.code, id, complete: () => Promise.reject(new Error('not begun')) };
    assert.equal(changeset.briefcaseId, recordedBriefcaseId ?? briefcaseId);
    assert.equal((await api.put(changeset._links.upload.href, bytes, { 'x-ms-blob-type': 'BlockBlob' })).status, 201);
    return {
      status,
      code: undefined,
      id,
      complete: () => api.patch(changeset._links.complete.href, { state: 'fileUploaded', briefcaseId }),
    };
  }

  test('a changeset keeps the briefcase that made it elsewhere, and later briefcases get higher ids', async () => {
    const { id: iModelId } = await makeIModel(context.olivia, context.iTwinId);
    const own = await acquire(iModelId, { minimumBriefcaseId: 10 });
    assert.equal(own, 10);
    let parentId = '';
    for (const recorded of [9, 2, null, 9]) {
      const pushed = await begin(iModelId, own, parentId, recorded);
      const done = await pushed.complete();
      assert.deepEqual(
        [done.status, (done.body as { changeset: { briefcaseId: number } }).changeset.briefcaseId],
        [200, recorded ?? own],
      );
      // A lost answer is repeated.
      assert.equal((await pushed.complete()).status, 200);
      parentId = pushed.id;
    }
    const listed = [];
    for await (const { briefcaseId } of context.olivia.client.changesets.getMinimalList({ ...as(), iModelId }))
      listed.push(briefcaseId);
    assert.deepEqual(listed, [9, 2, 10, 9]);
    for (const briefcaseId of [2, 9])
      assert.equal((await context.api.get(`/imodels/${iModelId}/briefcases/${briefcaseId}`)).status, 404);
    assert.equal(await acquire(iModelId), 11);
    // A minimum below the counter changes nothing.
    assert.equal(await acquire(iModelId, { minimumBriefcaseId: 3 }), 12);
  });

  test('an id that is not below the caller’s briefcase, or that is held here, is refused', async () => {
    const { id: iModelId } = await makeIModel(context.olivia, context.iTwinId);
    const early = await acquire(iModelId);
    const own = await acquire(iModelId, { minimumBriefcaseId: 20 });
    for (const recorded of [own, own + 1]) assert.deepEqual([(await begin(iModelId, own, '', recorded)).status], [422]);
    const taken = await begin(iModelId, own, '', early);
    assert.deepEqual([taken.status, taken.code], [409, 'ConflictWithAnotherUser']);
    assert.equal((await context.api.delete(`/imodels/${iModelId}/briefcases/${early}`)).status, 204);
    assert.equal((await begin(iModelId, own, '', early)).status, 201);
    for (const bad of [-1, 1.5, 2 ** 24, '7'])
      assert.equal((await begin(iModelId, own, '', bad as number)).status, 422);
    for (const bad of [1, 2 ** 24, 'x'])
      assert.equal(
        (await context.api.post(`/imodels/${iModelId}/briefcases`, { minimumBriefcaseId: bad })).status,
        422,
      );
  });

  test('a briefcase behind the last imported changeset gets no lock until it has pulled it', async () => {
    const { id: iModelId } = await makeIModel(context.olivia, context.iTwinId);
    const own = await acquire(iModelId, { minimumBriefcaseId: 10 });
    const ids: string[] = [];
    for (const recorded of [2, 3, undefined]) {
      const pushed = await begin(iModelId, own, ids.at(-1) ?? '', recorded);
      assert.equal((await pushed.complete()).status, 200);
      ids.push(pushed.id);
    }
    const lock = (changesetId: string | undefined) =>
      context.api.patch(`/imodels/${iModelId}/locks`, {
        briefcaseId: own,
        changesetId,
        lockedObjects: [{ lockLevel: 'exclusive', objectIds: ['0x11'] }],
      });
    for (const behind of ['', ids[0]]) {
      const { status, body } = await lock(behind);
      assert.deepEqual([status, (body as WireError).error.code], [409, 'NewerChangesExist']);
    }
    assert.equal((await lock(ids[1])).status, 200);
  });

  test('only managers of the iModel may record briefcases and reserve ids', async () => {
    const iTwinId = await context.server.iTwin();
    await context.server.grant(iTwinId, 'max', ['imodels_write']);
    const { id: iModelId } = await makeIModel(context.olivia, iTwinId);
    const max = await context.server.as('max');
    assert.equal((await max.post(`/imodels/${iModelId}/briefcases`, { minimumBriefcaseId: 20 })).status, 403);
    const { body } = await max.post(`/imodels/${iModelId}/briefcases`, {});
    const { briefcaseId } = (body as { briefcase: { briefcaseId: number } }).briefcase;
    const refused = await begin(iModelId, briefcaseId, '', 0, max);
    assert.deepEqual([refused.status, refused.code], [403, 'InsufficientPermissions']);
    assert.equal((await begin(iModelId, briefcaseId, '', undefined, max)).status, 201);
  });
});
