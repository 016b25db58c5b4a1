import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test } from 'node:test';
import { routes } from '../apps/server/src/api/routes.ts';
import { Api } from './support/api.ts';
import { makeIModel } from './support/clients.ts';
import { people } from './support/server.ts';
import { onEachDatabase } from './support/suite.ts';

/** Changes that write no entry, and why. A new route that changes something needs an entry, or a reason here. */
const unaudited: Record<string, string> = {
  ...Object.fromEntries(
    [
      'add-imodel-to-favorites',
      'remove-imodel-from-favorites',
      'add-imodel-to-recents',
      'remove-imodel-from-recents',
      'add-itwin-to-my-favorites',
      'remove-itwin-from-my-favorites',
      'add-itwin-to-my-recents',
      'remove-itwin-from-my-recents',
    ].map((operationId) => [operationId, "a list of the caller's own"]),
  ),
  'get-users-by-id-list': 'it changes nothing',
  'create-imodel-changeset': 'the push is noted when it is complete, or refused',
  'delete-itwin-member-invitation': 'there are no invitations',
  'delete-itwin-group-member-invitation': 'there are no invitations',
  'upload-itwin-image': 'tried in itwins.test.ts; it needs a picture',
  'upload-imodel-thumbnail': 'tried in thumbnails.test.ts; it needs a picture',
  'complete-imodel-baseline-file-upload': 'tried through the client, which this table does not see',
  'update-imodel-changeset': 'tried through the client, which this table does not see',
  'update-named-version-checkpoint': 'no checkpoint is made here',
  'make-changeset-checkpoint': 'tried in checkpointRequests.test.ts; no checkpoint is made here',
  'make-changeset-graphics': 'tried in graphics.test.ts; nothing is drawn here',
  'call-viewer': 'only reads, whatever its method',
  'delete-itwin-image': 'there is no picture here',
};

interface Step {
  operationId: string;
  method: 'POST' | 'PATCH' | 'PUT' | 'DELETE';
  path: string;
  body?: unknown;
  action: string;
  /** Whether the entry names the iModel too. */
  iModel?: boolean;
}

onEachDatabase('The audit log', {}, (context) => {
  test('records user and application for every change', async () => {
    const { api, iTwinId, server } = context;
    const { db } = server.services.database;
    const made = await makeIModel(context.olivia, iTwinId, { changesets: 1 });
    const id = made.id;
    const seen = new Set((await db.selectFrom('audit').select('id').execute()).map((entry) => entry.id));
    const tried = new Set<string>();

    /** Sends a request and finds the one entry that it wrote. @returns the body of the answer */
    const change = async <T>({ operationId, method, path, body, action, iModel = false }: Step): Promise<T> => {
      const answer = await api.send(method, path, body);
      assert.ok(answer.status < 300, `${operationId}: ${answer.status} ${JSON.stringify(answer.body)}`);
      const entries = (await db.selectFrom('audit').selectAll().execute()).filter((entry) => !seen.has(entry.id));
      for (const entry of entries) seen.add(entry.id);
      assert.deepEqual(
        entries.map((entry) => [entry.action, entry.actor_id, entry.application_id]),
        [[action, people.olivia.id, 'suite']],
        operationId,
      );
      const [entry] = entries;
      assert.ok(Math.abs((entry?.at ?? 0) - Date.now()) < 600_000, operationId);
      assert.equal(entry?.imodel_id != null, iModel, `${operationId} names its iModel`);
      assert.doesNotThrow(() => JSON.parse(entry?.detail ?? '') as unknown);
      tried.add(operationId);
      return answer.body as T;
    };

    const { iTwin } = await change<{ iTwin: { id: string } }>({
      operationId: 'create-itwin',
      method: 'POST',
      path: '/itwins',
      body: { displayName: randomUUID(), class: 'Endeavor', subClass: 'Project' },
      action: 'iTwin.create',
    });
    await change({
      operationId: 'update-itwin',
      method: 'PATCH',
      path: `/itwins/${iTwin.id}`,
      body: { displayName: randomUUID() },
      action: 'iTwin.update',
    });
    const { repository } = await change<{ repository: { id: string } }>({
      operationId: 'create-repository',
      method: 'POST',
      path: `/itwins/${iTwin.id}/repositories`,
      body: { class: 'iModels', uri: 'https://files.example.test/' },
      action: 'repository.create',
    });
    await change({
      operationId: 'update-repository',
      method: 'PATCH',
      path: `/itwins/${iTwin.id}/repositories/${repository.id}`,
      body: { uri: 'https://files.example.test/2' },
      action: 'repository.update',
    });
    await change({
      operationId: 'delete-repository',
      method: 'DELETE',
      path: `/itwins/${iTwin.id}/repositories/${repository.id}`,
      action: 'repository.delete',
    });
    const { webhook } = await change<{ webhook: { id: string } }>({
      operationId: 'create-itwin-webhook',
      method: 'POST',
      path: `/itwins/${iTwin.id}/webhooks`,
      body: { callbackUrl: 'https://hooks.example.test/', eventTypes: ['iModels.iModelCreated.v1'] },
      action: 'webhook.create',
    });
    await change({
      operationId: 'update-itwin-webhook',
      method: 'PATCH',
      path: `/itwins/${iTwin.id}/webhooks/${webhook.id}`,
      body: { isActive: false },
      action: 'webhook.update',
    });
    const messageId = randomUUID();
    const failed = {
      kind: 'deliver',
      subject_id: webhook.id,
      tenant: iTwin.id,
      user_id: webhook.id,
      payload: '{}',
      state: 'failed',
      run_at: 1,
      attempt: 1,
      lease_owner: null,
      lease_until: null,
      wait_ms: 0,
      last_error: 'gone',
      created_at: 1,
      trace: null,
    } as const;
    await db
      .insertInto('job')
      .values({ id: messageId, ...failed })
      .execute();
    await change({
      operationId: 'redeliver-itwin-webhook-dead-letter',
      method: 'POST',
      path: `/itwins/${iTwin.id}/webhooks/${webhook.id}/deadletters/${messageId}`,
      action: 'webhook.redeliver',
    });
    await change({
      operationId: 'delete-itwin-webhook',
      method: 'DELETE',
      path: `/itwins/${iTwin.id}/webhooks/${webhook.id}`,
      action: 'webhook.delete',
    });

    const access = `/accesscontrol/itwins/${iTwin.id}`;
    const { role } = await change<{ role: { id: string } }>({
      operationId: 'create-itwin-role',
      method: 'POST',
      path: `${access}/roles`,
      body: { displayName: 'role', description: '', permissions: ['imodels_read'] },
      action: 'role.create',
    });
    await change({
      operationId: 'update-itwin-role',
      method: 'PATCH',
      path: `${access}/roles/${role.id}`,
      body: { displayName: 'other', description: '', permissions: ['imodels_webview'] },
      action: 'role.update',
    });
    await change({
      operationId: 'add-itwin-members',
      method: 'POST',
      path: `${access}/members/users`,
      body: { members: [{ email: people.max.email, roleIds: [role.id] }] },
      action: 'member.add',
    });
    await change({
      operationId: 'update-itwin-member',
      method: 'PATCH',
      path: `${access}/members/users/${people.max.id}`,
      body: { roleIds: [role.id] },
      action: 'member.setRoles',
    });
    await change({
      operationId: 'remove-itwin-member',
      method: 'DELETE',
      path: `${access}/members/users/${people.max.id}`,
      action: 'member.remove',
    });
    const { group } = await change<{ group: { id: string } }>({
      operationId: 'create-itwin-group',
      method: 'POST',
      path: `${access}/groups`,
      body: { name: 'group', description: '' },
      action: 'group.create',
    });
    await change({
      operationId: 'update-itwin-group',
      method: 'PATCH',
      path: `${access}/groups/${group.id}`,
      body: { name: 'other group' },
      action: 'group.update',
    });
    await change({
      operationId: 'add-itwin-group-members',
      method: 'POST',
      path: `${access}/members/groups`,
      body: { members: [{ groupId: group.id, roleIds: [role.id] }] },
      action: 'groupMember.add',
    });
    await change({
      operationId: 'update-itwin-group-member',
      method: 'PATCH',
      path: `${access}/members/groups/${group.id}`,
      body: { roleIds: [role.id] },
      action: 'groupMember.setRoles',
    });
    await change({
      operationId: 'remove-itwin-group-member',
      method: 'DELETE',
      path: `${access}/members/groups/${group.id}`,
      action: 'groupMember.remove',
    });
    await change({
      operationId: 'delete-itwin-group',
      method: 'DELETE',
      path: `${access}/groups/${group.id}`,
      action: 'group.delete',
    });
    await change({
      operationId: 'add-itwin-owner',
      method: 'POST',
      path: `${access}/members/owners`,
      body: { email: people.max.email },
      action: 'owner.add',
    });
    await change({
      operationId: 'remove-itwin-owner',
      method: 'DELETE',
      path: `${access}/members/owners/${people.max.id}`,
      action: 'owner.remove',
    });
    await change({
      operationId: 'delete-itwin-role',
      method: 'DELETE',
      path: `${access}/roles/${role.id}`,
      action: 'role.delete',
    });

    await change({
      operationId: 'create-imodel',
      method: 'POST',
      path: '/imodels',
      body: { iTwinId, name: randomUUID() },
      action: 'iModel.create',
      iModel: true,
    });
    await change({
      operationId: 'update-imodel',
      method: 'PATCH',
      path: `/imodels/${id}`,
      body: { description: 'described' },
      action: 'iModel.update',
      iModel: true,
    });
    await change({
      operationId: 'clone-imodel',
      method: 'POST',
      path: `/imodels/${id}/clone`,
      body: { iTwinId, name: randomUUID() },
      action: 'iModel.clone',
      iModel: true,
    });
    await change({
      operationId: 'fork-imodel',
      method: 'POST',
      path: `/imodels/${id}/fork`,
      body: { iTwinId, name: randomUUID(), preserveHistory: true },
      action: 'iModel.fork',
      iModel: true,
    });
    const { namedVersion } = await change<{ namedVersion: { id: string } }>({
      operationId: 'create-imodel-named-version',
      method: 'POST',
      path: `/imodels/${id}/namedversions`,
      body: { name: 'version', changesetId: made.changesets[0]?.id },
      action: 'namedVersion.create',
      iModel: true,
    });
    await change({
      operationId: 'update-imodel-named-version',
      method: 'PATCH',
      path: `/imodels/${id}/namedversions/${namedVersion.id}`,
      body: { description: 'described' },
      action: 'namedVersion.update',
      iModel: true,
    });
    const { share } = await change<{ share: { id: string } }>({
      operationId: 'create-imodel-share',
      method: 'POST',
      path: `/imodels/${id}/shares`,
      body: {
        name: 'share',
        permission: 'imodels_webview',
        expiresAt: new Date(Date.now() + 86_400_000).toISOString(),
      },
      action: 'share.create',
      iModel: true,
    });
    await change({
      operationId: 'update-imodel-share',
      method: 'PATCH',
      path: `/imodels/${id}/shares/${share.id}`,
      body: { expiresAt: new Date(Date.now() + 3_600_000).toISOString() },
      action: 'share.update',
      iModel: true,
    });
    await change({
      operationId: 'revoke-imodel-share',
      method: 'DELETE',
      path: `/imodels/${id}/shares/${share.id}`,
      action: 'share.revoke',
      iModel: true,
    });
    const { briefcase } = await change<{ briefcase: { briefcaseId: number } }>({
      operationId: 'acquire-imodel-briefcase',
      method: 'POST',
      path: `/imodels/${id}/briefcases`,
      body: {},
      action: 'briefcase.acquire',
      iModel: true,
    });
    const { briefcaseId } = briefcase;
    await change({
      operationId: 'update-imodel-locks',
      method: 'PATCH',
      path: `/imodels/${id}/locks`,
      body: {
        briefcaseId,
        changesetId: made.changesets[0]?.id,
        lockedObjects: [{ lockLevel: 'exclusive', objectIds: ['0x20'] }],
      },
      action: 'locks.update',
      iModel: true,
    });
    await change({
      operationId: 'release-imodel-locks-chunk',
      method: 'POST',
      path: `/imodels/${id}/locks/release-chunk`,
      body: { briefcaseId, changesetId: made.changesets[0]?.id },
      action: 'locks.update',
      iModel: true,
    });
    await change({
      operationId: 'release-imodel-briefcase',
      method: 'DELETE',
      path: `/imodels/${id}/briefcases/${briefcaseId}`,
      action: 'briefcase.release',
      iModel: true,
    });
    const { changesetGroup } = await change<{ changesetGroup: { id: string } }>({
      operationId: 'create-imodel-changeset-group',
      method: 'POST',
      path: `/imodels/${id}/changesetgroups`,
      body: { description: 'group' },
      action: 'changesetGroup.create',
      iModel: true,
    });
    await change({
      operationId: 'update-imodel-changeset-group',
      method: 'PATCH',
      path: `/imodels/${id}/changesetgroups/${changesetGroup.id}`,
      body: { state: 'completed' },
      action: 'changesetGroup.complete',
      iModel: true,
    });
    await change({
      operationId: 'create-imodel-changeset-extended-data',
      method: 'POST',
      path: `/imodels/${id}/changesets/1/extendeddata`,
      body: { data: Buffer.from('{}').toString('base64') },
      action: 'extendedData.create',
      iModel: true,
    });
    const grant = (operationId: string, method: Step['method'], path: string, body: unknown) =>
      change({ operationId, method, path: `/imodels/${id}/${path}`, body, action: 'iModel.permissions', iModel: true });
    const onIModel = await server.grant(iTwinId, 'max', ['imodels_read']);
    for (const entry of await db.selectFrom('audit').select('id').execute()) seen.add(entry.id);
    const roles = { rolePermissions: [{ roleId: onIModel, permissions: ['imodels_read'] }] };
    await grant('update-imodel-rolepermissions', 'PATCH', 'rolepermissions', roles);
    await grant('replace-imodel-rolepermissions', 'PUT', 'rolepermissions', roles);
    await grant('update-imodel-rolepermissions-by-role', 'PATCH', `roles/${onIModel}`, roles);
    await grant('replace-imodel-rolepermissions-by-role', 'PUT', `roles/${onIModel}`, roles);
    await grant('replace-imodel-rolepermissions', 'PUT', 'rolepermissions', { rolePermissions: [] });
    const users = { userPermissions: [{ userId: people.max.id, permissions: ['imodels_read'] }] };
    await grant('update-imodel-userpermissions', 'PATCH', 'userpermissions', users);
    await grant('replace-imodel-userpermissions', 'PUT', 'userpermissions', users);
    await change({
      operationId: 'delete-imodel',
      method: 'DELETE',
      path: `/imodels/${id}`,
      action: 'iModel.delete',
      iModel: true,
    });
    // Only for Organization Administrators.
    const admin = await server.as('admin');
    assert.equal((await admin.delete(`/itwins/${iTwin.id}`)).status, 204);
    const deleted = await db
      .selectFrom('audit')
      .selectAll()
      .where('itwin_id', '=', iTwin.id)
      .where('action', '=', 'iTwin.delete')
      .executeTakeFirstOrThrow();
    assert.deepEqual([deleted.actor_id, deleted.application_id, deleted.imodel_id], [people.admin.id, 'suite', null]);
    tried.add('delete-itwin');

    const changing = routes.filter(({ method }) => method !== 'GET').map(({ operationId }) => operationId);
    assert.deepEqual(
      changing.filter((operationId) => !tried.has(operationId) && unaudited[operationId] === undefined),
      [],
      'changes without an entry and without a reason',
    );
    assert.deepEqual(
      Object.keys(unaudited).filter((operationId) => !changing.includes(operationId) || tried.has(operationId)),
      [],
      'reasons that hold no longer',
    );
  });

  test('records each completed push and each completed baseline', async () => {
    const { db } = context.server.services.database;
    const made = await makeIModel(context.olivia, context.iTwinId, { changesets: 2 });
    const actions = await db
      .selectFrom('audit')
      .select(['action', 'actor_id', 'itwin_id', 'detail'])
      .where('imodel_id', '=', made.id)
      .orderBy('at')
      .execute();
    assert.deepEqual(
      actions.map(({ action, actor_id, itwin_id }) => [action, actor_id, itwin_id]),
      ['iModel.create', 'briefcase.acquire', 'changeset.push', 'changeset.push'].map((action) => [
        action,
        people.olivia.id,
        context.iTwinId,
      ]),
    );
    assert.deepEqual(
      actions.slice(2).map(({ detail }) => JSON.parse(detail) as unknown),
      made.changesets.map(({ id }, n) => ({ id, index: n + 1 })),
    );
  });

  test('records refused attempts on existing resources once a minute, and none on unknown ones', async () => {
    const { server } = context;
    const { db } = server.services.database;
    const iTwinId = await server.iTwin();
    await server.grant(iTwinId, 'max', ['imodels_webview']);
    const made = await makeIModel(context.olivia, iTwinId, { changesets: 1 });
    const [max, eve] = [await server.as('max'), await server.as('eve')];
    const attempts = async (): Promise<void> => {
      assert.equal((await max.patch(`/imodels/${made.id}`, { description: 'mine' })).status, 403);
      assert.equal((await max.delete(`/imodels/${made.id}`)).status, 403);
      assert.equal((await max.delete(`/imodels/${made.id}/briefcases/${made.briefcaseId}`)).status, 403);
      assert.equal(
        (
          await max.patch(`/accesscontrol/itwins/${iTwinId}/members/users/${people.max.id}`, {
            roleIds: [randomUUID()],
          })
        ).status,
        403,
      );
      assert.equal((await eve.get(`/imodels/${made.id}`)).status, 404);
      assert.equal((await eve.get(`/imodels?iTwinId=${iTwinId}`)).status, 404);
      assert.equal((await eve.delete(`/itwins/${iTwinId}`)).status, 404);
      assert.equal((await eve.get(`/imodels/${randomUUID()}`)).status, 404);
      assert.equal((await eve.patch(`/itwins/${randomUUID()}`, { displayName: 'x' })).status, 404);
    };
    await attempts();
    await attempts();
    const expiresAt = new Date(Date.now() + 86_400_000).toISOString();
    const { share } = (
      await context.api.post(`/imodels/${made.id}/shares`, { name: 'share', permission: 'imodels_read', expiresAt })
    ).body as { share: { id: string; shareKey: string } };
    assert.equal(
      (await new Api(server.origin).get(`/imodels/${made.id}/users`, { authorization: `Basic ${share.shareKey}` }))
        .status,
      403,
    );
    const entries = await db
      .selectFrom('audit')
      .selectAll()
      .where('itwin_id', '=', iTwinId)
      .where('action', '=', 'refused')
      .orderBy('at')
      .execute();
    const seen = entries.map(
      ({ actor_id, imodel_id, detail }) =>
        `${actor_id} ${imodel_id ?? '-'} ${Object.values(JSON.parse(detail) as object).join(' ')}`,
    );
    assert.deepEqual(
      seen.toSorted(),
      [
        `${people.max.id} ${made.id} update-imodel InsufficientPermissions`,
        `${people.max.id} ${made.id} delete-imodel InsufficientPermissions`,
        `${people.max.id} ${made.id} release-imodel-briefcase InsufficientPermissions`,
        `${people.max.id} - update-itwin-member InsufficientPermissions`,
        `${people.eve.id} ${made.id} get-imodel-details iModelNotFound`,
        `${people.eve.id} - get-itwin-imodels iTwinNotFound`,
        `${people.eve.id} - delete-itwin iTwinNotFound`,
        `share:${share.id} ${made.id} get-imodel-users InsufficientPermissions`,
      ].toSorted(),
    );
    assert.equal(
      (
        await db
          .selectFrom('audit')
          .select('id')
          .where('action', '=', 'refused')
          .where('actor_id', '=', people.eve.id)
          .where('itwin_id', '!=', iTwinId)
          .execute()
      ).length,
      0,
    );
  });
});
