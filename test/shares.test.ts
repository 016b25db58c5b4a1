import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test } from 'node:test';
import { type WireError, Api, type Answer } from './support/api.ts';
import { makeIModel } from './support/clients.ts';
import { onEachDatabase } from './support/suite.ts';

interface Share {
  id: string;
  name: string;
  displayName: string;
  expiresAt: string;
  permission: string;
  shareKey?: string;
}

// The published clients have no calls for shares.
onEachDatabase('Shares', {}, (context) => {
  const inDays = (days: number): string => new Date(Date.now() + days * 86_400_000).toISOString();
  const codeOf = (answer: Answer): string => (answer.body as WireError).error.code;

  async function share(iModelId: string, permission = 'imodels_webview', expiresAt = inDays(1)): Promise<Share> {
    const answer = await context.api.post(`/imodels/${iModelId}/shares`, {
      name: `for ${permission}`,
      expiresAt,
      permission,
    });
    assert.equal(answer.status, 201, JSON.stringify(answer.body));
    return (answer.body as { share: Share }).share;
  }
  const holderOf = (key: string | undefined) => ({
    get: (path: string) => new Api(context.server.origin).get(path, { authorization: `Basic ${key}` }),
    send: (method: string, path: string, body?: unknown) =>
      new Api(context.server.origin).send(method, path, body, { authorization: `Basic ${key}` }),
  });

  test('open one iModel to every holder of the key, which is shown once', async () => {
    const made = await makeIModel(context.olivia, context.iTwinId, { changesets: 1 });
    const { shareKey, ...created } = await share(made.id);
    assert.equal(created.displayName, created.name);
    assert.ok((shareKey ?? '').length >= 40);
    assert.deepEqual((await context.api.get(`/imodels/${made.id}/shares/${created.id}`)).body, { share: created });
    assert.deepEqual(((await context.api.get(`/imodels/${made.id}/shares`)).body as { shares: Share[] }).shares, [
      created,
    ]);
    assert.equal((await holderOf(shareKey).get(`/imodels/${made.id}`)).status, 200);
    const { changeset } = (await holderOf(shareKey).get(`/imodels/${made.id}/changesets/1`)).body as {
      changeset: { _links: { download: null } };
    };
    assert.equal(changeset._links.download, null);
    const stored = await context.server.services.database.db.selectFrom('share').selectAll().execute();
    assert.ok(!JSON.stringify(stored).includes(shareKey ?? '?'));
  });

  test('grant what they declare and no more: no other iModel, no iTwin, no change, no clone', async () => {
    const [made, other] = [
      await makeIModel(context.olivia, context.iTwinId, { changesets: 1 }),
      await makeIModel(context.olivia, context.iTwinId),
    ];
    const viewer = holderOf((await share(made.id)).shareKey);
    const reader = holderOf((await share(made.id, 'imodels_read')).shareKey);
    const { changeset } = (await reader.get(`/imodels/${made.id}/changesets/1`)).body as {
      changeset: { _links: { download: { href: string } } };
    };
    assert.equal(
      (
        await fetch(changeset._links.download.href).then(async (response) => ({
          status: response.status,
          read: await response.arrayBuffer(),
        }))
      ).status,
      200,
    );
    assert.equal((await reader.get(`/imodels/${made.id}/changesets/0/checkpoint`)).status, 200);
    assert.equal(codeOf(await viewer.get(`/imodels/${made.id}/changesets/0/checkpoint`)), 'InsufficientPermissions');
    for (const holder of [viewer, reader]) {
      assert.equal((await holder.get(`/imodels/${other.id}`)).status, 404);
      assert.equal((await holder.get(`/itwins/${context.iTwinId}`)).status, 404);
      assert.equal((await holder.get(`/imodels?iTwinId=${context.iTwinId}`)).status, 404);
      assert.deepEqual(((await holder.get('/itwins')).body as { iTwins: [] }).iTwins, []);
      assert.deepEqual(((await holder.get(`/imodels/${made.id}/shares`)).body as { shares: [] }).shares, []);
      for (const [method, path, body] of [
        ['POST', `/imodels/${made.id}/clone`, { iTwinId: context.iTwinId, name: 'x' }],
        ['POST', `/imodels/${made.id}/briefcases`, {}],
        ['PATCH', `/imodels/${made.id}`, { name: 'x' }],
        ['DELETE', `/imodels/${made.id}`, undefined],
        ['PUT', `/imodels/favorites/${made.id}`, undefined],
        ['POST', `/imodels/${made.id}/shares`, { name: 'x', expiresAt: inDays(1), permission: 'imodels_read' }],
        ['POST', '/itwins', { displayName: 'x', class: 'Endeavor', subClass: 'Project' }],
      ] as const)
        assert.equal((await holder.send(method, path, body)).status, 403, path);
    }
    // The holder of a share does not count as a user of the iModel.
    assert.equal(((await context.api.get(`/imodels/${made.id}/users`)).body as { users: [] }).users.length, 1);
  });

  test('end when they expire, are revoked, or their iModel is deleted', async (t) => {
    const made = await makeIModel(context.olivia, context.iTwinId);
    const created = await share(made.id);
    const { shareKey } = created;
    const extended = await context.api.patch(`/imodels/${made.id}/shares/${created.id}`, { expiresAt: inDays(3) });
    assert.equal(extended.status, 200);
    const twoDays = Date.now() + 2 * 86_400_000;
    const fourDays = Date.now() + 4 * 86_400_000;
    const clock = t.mock.method(Date, 'now', () => twoDays);
    assert.equal((await holderOf(shareKey).get(`/imodels/${made.id}`)).status, 200);
    clock.mock.mockImplementation(() => fourDays);
    assert.equal((await holderOf(shareKey).get(`/imodels/${made.id}`)).status, 401);
    clock.mock.restore();
    assert.equal((await context.api.delete(`/imodels/${made.id}/shares/${created.id}`)).status, 204);
    assert.equal((await holderOf(shareKey).get(`/imodels/${made.id}`)).status, 401);
    assert.equal(codeOf(await context.api.delete(`/imodels/${made.id}/shares/${created.id}`)), 'ShareNotFound');
    const last = await share(made.id);
    await context.api.delete(`/imodels/${made.id}`);
    assert.equal((await holderOf(last.shareKey).get(`/imodels/${made.id}`)).status, 404);
  });

  test('of other users are hidden, and invalid ones are refused', async () => {
    const made = await makeIModel(context.olivia, context.iTwinId);
    const created = await share(made.id);
    await context.server.grant(context.iTwinId, 'max', ['imodels_manage']);
    const max = await context.server.as('max');
    assert.deepEqual(((await max.get(`/imodels/${made.id}/shares`)).body as { shares: [] }).shares, []);
    for (const id of [created.id, randomUUID(), 'x'])
      assert.equal(codeOf(await max.get(`/imodels/${made.id}/shares/${id}`)), 'ShareNotFound');
    for (const expiresAt of [inDays(-1), inDays(190), 'tomorrow', '2026', '']) {
      const answer = await context.api.post(`/imodels/${made.id}/shares`, {
        name: 'x',
        expiresAt,
        permission: 'imodels_read',
      });
      assert.deepEqual(
        [answer.status, (answer.body as WireError).error.details?.[0]?.target],
        [422, 'expiresAt'],
        expiresAt,
      );
    }
    const wide = await context.api.post(`/imodels/${made.id}/shares`, {
      name: 'x',
      expiresAt: inDays(1),
      permission: 'imodels_manage',
    });
    assert.deepEqual([wide.status, (wide.body as WireError).error.details?.[0]?.target], [422, 'permission']);
  });
});
