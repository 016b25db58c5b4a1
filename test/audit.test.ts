import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test } from 'node:test';
import { routes } from '../apps/server/src/api/routes.ts';
import { makeIModel } from './support/clients.ts';
import { people } from './support/server.ts';
import { onEachDatabase } from './support/suite.ts';

/** Changes that write no entry, and why. Whoever adds a route that changes something adds an entry, or a reason here. */
const unaudited: Record<string, string> = {
  ...Object.fromEntries(
    ['add-imodel-to-favorites', 'remove-imodel-from-favorites', 'add-imodel-to-recents', 'remove-imodel-from-recents', 'add-itwin-to-my-favorites', 'remove-itwin-from-my-favorites', 'add-itwin-to-my-recents', 'remove-itwin-from-my-recents'].map(
      (operationId) => [operationId, "a list of the caller's own"],
    ),
  ),
  'create-imodel-changeset': 'the push is noted when it is complete, or refused',
  'acquire-imodel-briefcase': 'not audited yet',
  'release-imodel-briefcase': 'not audited yet',
  'update-imodel-locks': 'not audited yet',
  'release-imodel-locks-chunk': 'not audited yet',
  'create-imodel-changeset-group': 'not audited yet',
  'update-imodel-changeset-group': 'not audited yet',
  'create-imodel-changeset-extended-data': 'not audited yet',
  'update-imodel-share': 'not audited yet',
  'revoke-imodel-share': 'not audited yet',
  'redeliver-itwin-webhook-dead-letter': 'not audited yet',
  'delete-itwin-member-invitation': 'there are no invitations',
  'delete-itwin-group-member-invitation': 'there are no invitations',
  'upload-itwin-image': 'tried in itwins.test.ts; it needs a picture',
  'upload-imodel-thumbnail': 'tried in thumbnails.test.ts; it needs a picture',
  'complete-imodel-baseline-file-upload': 'tried through the client, which this table does not see',
  'update-imodel-changeset': 'tried through the client, which this table does not see',
  'update-named-version-checkpoint': 'no checkpoint is made here',
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
  test('has an entry of who changed what, with which application, for every change', async () => {
    const { api, iTwinId, server } = context;
    const { db } = server.services.database;
    const made = await makeIModel(context.olivia, iTwinId, { changesets: 1 });
    const id = made.id;
    const seen = new Set((await db.selectFrom('audit').select('id').execute()).map((entry) => entry.id));
    const tried = new Set<string>();

    /** Sends a request and finds the one entry that it wrote. @returns the answer's body */
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

    const { iTwin } = await change<{ iTwin: { id: string } }>({ operationId: 'create-itwin', method: 'POST', path: '/itwins', body: { displayName: randomUUID(), class: 'Endeavor', subClass: 'Project' }, action: 'iTwin.create' });
    await change({ operationId: 'update-itwin', method: 'PATCH', path: `/itwins/${iTwin.id}`, body: { displayName: randomUUID() }, action: 'iTwin.update' });
    const { repository } = await change<{ repository: { id: string } }>({ operationId: 'create-repository', method: 'POST', path: `/itwins/${iTwin.id}/repositories`, body: { class: 'iModels', uri: 'https://files.example.test/' }, action: 'repository.create' });
    await change({ operationId: 'update-repository', method: 'PATCH', path: `/itwins/${iTwin.id}/repositories/${repository.id}`, body: { uri: 'https://files.example.test/2' }, action: 'repository.update' });
    await change({ operationId: 'delete-repository', method: 'DELETE', path: `/itwins/${iTwin.id}/repositories/${repository.id}`, action: 'repository.delete' });
    const { webhook } = await change<{ webhook: { id: string } }>({ operationId: 'create-itwin-webhook', method: 'POST', path: `/itwins/${iTwin.id}/webhooks`, body: { callbackUrl: 'https://hooks.example.test/', eventTypes: ['iModels.iModelCreated.v1'] }, action: 'webhook.create' });
    await change({ operationId: 'update-itwin-webhook', method: 'PATCH', path: `/itwins/${iTwin.id}/webhooks/${webhook.id}`, body: { isActive: false }, action: 'webhook.update' });
    await change({ operationId: 'delete-itwin-webhook', method: 'DELETE', path: `/itwins/${iTwin.id}/webhooks/${webhook.id}`, action: 'webhook.delete' });

    const access = `/accesscontrol/itwins/${iTwin.id}`;
    const { role } = await change<{ role: { id: string } }>({ operationId: 'create-itwin-role', method: 'POST', path: `${access}/roles`, body: { displayName: 'role', description: '', permissions: ['imodels_read'] }, action: 'role.create' });
    await change({ operationId: 'update-itwin-role', method: 'PATCH', path: `${access}/roles/${role.id}`, body: { displayName: 'other', description: '', permissions: ['imodels_webview'] }, action: 'role.update' });
    await change({ operationId: 'add-itwin-members', method: 'POST', path: `${access}/members/users`, body: { members: [{ email: people.max.email, roleIds: [role.id] }] }, action: 'member.add' });
    await change({ operationId: 'update-itwin-member', method: 'PATCH', path: `${access}/members/users/${people.max.id}`, body: { roleIds: [role.id] }, action: 'member.setRoles' });
    await change({ operationId: 'remove-itwin-member', method: 'DELETE', path: `${access}/members/users/${people.max.id}`, action: 'member.remove' });
    const { group } = await change<{ group: { id: string } }>({ operationId: 'create-itwin-group', method: 'POST', path: `${access}/groups`, body: { name: 'group', description: '' }, action: 'group.create' });
    await change({ operationId: 'update-itwin-group', method: 'PATCH', path: `${access}/groups/${group.id}`, body: { name: 'other group' }, action: 'group.update' });
    await change({ operationId: 'add-itwin-group-members', method: 'POST', path: `${access}/members/groups`, body: { members: [{ groupId: group.id, roleIds: [role.id] }] }, action: 'groupMember.add' });
    await change({ operationId: 'update-itwin-group-member', method: 'PATCH', path: `${access}/members/groups/${group.id}`, body: { roleIds: [role.id] }, action: 'groupMember.setRoles' });
    await change({ operationId: 'remove-itwin-group-member', method: 'DELETE', path: `${access}/members/groups/${group.id}`, action: 'groupMember.remove' });
    await change({ operationId: 'delete-itwin-group', method: 'DELETE', path: `${access}/groups/${group.id}`, action: 'group.delete' });
    await change({ operationId: 'add-itwin-owner', method: 'POST', path: `${access}/members/owners`, body: { email: people.max.email }, action: 'owner.add' });
    await change({ operationId: 'remove-itwin-owner', method: 'DELETE', path: `${access}/members/owners/${people.max.id}`, action: 'owner.remove' });
    await change({ operationId: 'delete-itwin-role', method: 'DELETE', path: `${access}/roles/${role.id}`, action: 'role.delete' });

    await change({ operationId: 'create-imodel', method: 'POST', path: '/imodels', body: { iTwinId, name: randomUUID() }, action: 'iModel.create', iModel: true });
    await change({ operationId: 'update-imodel', method: 'PATCH', path: `/imodels/${id}`, body: { description: 'described' }, action: 'iModel.update', iModel: true });
    await change({ operationId: 'clone-imodel', method: 'POST', path: `/imodels/${id}/clone`, body: { iTwinId, name: randomUUID() }, action: 'iModel.clone', iModel: true });
    await change({ operationId: 'fork-imodel', method: 'POST', path: `/imodels/${id}/fork`, body: { iTwinId, name: randomUUID(), preserveHistory: true }, action: 'iModel.fork', iModel: true });
    const { namedVersion } = await change<{ namedVersion: { id: string } }>({ operationId: 'create-imodel-named-version', method: 'POST', path: `/imodels/${id}/namedversions`, body: { name: 'version', changesetId: made.changesets[0]?.id }, action: 'namedVersion.create', iModel: true });
    await change({ operationId: 'update-imodel-named-version', method: 'PATCH', path: `/imodels/${id}/namedversions/${namedVersion.id}`, body: { description: 'described' }, action: 'namedVersion.update', iModel: true });
    await change({ operationId: 'create-imodel-share', method: 'POST', path: `/imodels/${id}/shares`, body: { name: 'share', permission: 'imodels_webview', expiresAt: new Date(Date.now() + 86_400_000).toISOString() }, action: 'share.create', iModel: true });
    const grant = (operationId: string, method: Step['method'], path: string, body: unknown) => change({ operationId, method, path: `/imodels/${id}/${path}`, body, action: 'iModel.permissions', iModel: true });
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
    await change({ operationId: 'delete-imodel', method: 'DELETE', path: `/imodels/${id}`, action: 'iModel.delete', iModel: true });
    // For Organization Administrators only.
    const admin = await server.as('admin');
    assert.equal((await admin.delete(`/itwins/${iTwin.id}`)).status, 204);
    const deleted = await db.selectFrom('audit').selectAll().where('itwin_id', '=', iTwin.id).where('action', '=', 'iTwin.delete').executeTakeFirstOrThrow();
    assert.deepEqual([deleted.actor_id, deleted.application_id, deleted.imodel_id], [people.admin.id, 'suite', null]);
    tried.add('delete-itwin');

    const changing = routes.filter(({ method }) => method !== 'GET').map(({ operationId }) => operationId);
    assert.deepEqual(changing.filter((operationId) => !tried.has(operationId) && unaudited[operationId] === undefined), [], 'changes without an entry and without a reason');
    assert.deepEqual(Object.keys(unaudited).filter((operationId) => !changing.includes(operationId) || tried.has(operationId)), [], 'reasons that hold no longer');
  });

  test('has an entry of each completed push and each completed baseline', async () => {
    const { db } = context.server.services.database;
    const made = await makeIModel(context.olivia, context.iTwinId, { changesets: 2 });
    const actions = await db.selectFrom('audit').select(['action', 'actor_id', 'itwin_id', 'detail']).where('imodel_id', '=', made.id).orderBy('at').execute();
    assert.deepEqual(actions.map(({ action, actor_id, itwin_id }) => [action, actor_id, itwin_id]), ['iModel.create', 'changeset.push', 'changeset.push'].map((action) => [action, people.olivia.id, context.iTwinId]));
    assert.deepEqual(actions.slice(1).map(({ detail }) => JSON.parse(detail) as unknown), made.changesets.map(({ id }, n) => ({ id, index: n + 1 })));
  });
});
