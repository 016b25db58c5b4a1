import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test } from 'node:test';
import type { WireError } from './support/api.ts';
import { all, makeIModel, official, type MadeIModel } from './support/clients.ts';
import { people } from './support/server.ts';
import { onEachDatabase } from './support/suite.ts';

onEachDatabase('Permissions', {}, (context) => {
  const permissionsOf = async (who: 'max' | 'olivia', iModelId: string) => {
    const { client, authorization } = await official(context.server, who);
    return (await client.userPermissions.get({ authorization, iModelId })).permissions;
  };

  test('the official client reads the caller’s permissions, without the permission to delete', async () => {
    const own = await context.server.iTwin();
    const made = await makeIModel(context.olivia, own);
    assert.deepEqual(await permissionsOf('olivia', made.id), [
      'imodels_webview',
      'imodels_read',
      'imodels_write',
      'imodels_manage',
    ]);
    await context.server.grant(own, 'max', ['imodels_read', 'imodels_delete']);
    assert.deepEqual(await permissionsOf('max', made.id), ['imodels_webview', 'imodels_read']);
  });

  test('roles are additive, and end with the role and the membership', async () => {
    const own = await context.server.iTwin();
    const made = await makeIModel(context.olivia, own);
    const viewer = await context.server.grant(own, 'max', ['imodels_webview']);
    const writer = await context.server.grant(own, 'max', ['imodels_write']);
    assert.deepEqual(await permissionsOf('max', made.id), ['imodels_webview', 'imodels_read', 'imodels_write']);
    const base = `/accesscontrol/itwins/${own}`;
    const { members } = (await context.api.get(`${base}/members/users`)).body as {
      members: { id: string; roles: { id: string }[] }[];
    };
    assert.deepEqual(
      members.map(({ id, roles }) => [id, roles.map((role) => role.id).toSorted()]),
      [[people.max.id, [viewer, writer].toSorted()]],
    );
    assert.equal((await context.api.delete(`${base}/roles/${writer}`)).status, 204);
    assert.deepEqual(await permissionsOf('max', made.id), ['imodels_webview']);
    const changed = await context.api.patch(`${base}/roles/${viewer}`, { permissions: ['imodels_manage'] });
    assert.equal(changed.status, 200);
    assert.equal((await permissionsOf('max', made.id)).length, 4);
    assert.equal((await context.api.delete(`${base}/members/users/${people.max.id}`)).status, 204);
    assert.equal((await (await context.server.as('max')).get(`/imodels/${made.id}`)).status, 404);
  });

  test('an iModel reports whether it has its own permissions, and inherits again without them', async () => {
    const own = await context.server.iTwin();
    const role = await context.server.grant(own, 'max', ['imodels_write']);
    const made = await makeIModel(context.olivia, own);
    const secured = async (): Promise<boolean> =>
      ((await context.api.get(`/imodels/${made.id}`)).body as { iModel: { isSecured: boolean } }).iModel.isSecured;
    assert.equal(await secured(), false);
    const rolePermissions = [{ roleId: role, permissions: ['imodels_read'] }];
    const set = await context.api.put(`/imodels/${made.id}/rolepermissions`, { rolePermissions });
    assert.deepEqual([set.status, set.body], [200, { rolePermissions }]);
    assert.deepEqual((await context.api.get(`/imodels/${made.id}/rolepermissions`)).body, { rolePermissions });
    assert.equal(await secured(), true);
    assert.deepEqual(await permissionsOf('max', made.id), ['imodels_webview', 'imodels_read']);
    const both = await context.api.put(`/imodels/${made.id}/userpermissions`, {
      userPermissions: [{ userId: people.max.id, permissions: ['imodels_read'] }],
    });
    assert.equal(both.status, 422);
    assert.equal((both.body as WireError).error.details?.[0]?.code, 'MutuallyExclusivePropertiesProvided');
    assert.deepEqual((await context.api.put(`/imodels/${made.id}/rolepermissions`, { rolePermissions: [] })).body, {
      rolePermissions: [],
    });
    assert.equal(await secured(), false);
    assert.deepEqual(await permissionsOf('max', made.id), ['imodels_webview', 'imodels_read', 'imodels_write']);
  });

  test('role permissions can be read and set at their other address too', async () => {
    const own = await context.server.iTwin();
    const role = await context.server.grant(own, 'max', ['imodels_webview']);
    const made = await makeIModel(context.olivia, own);
    const other = `/imodels/${made.id}/roles/${role}`;
    const rolePermissions = [{ roleId: role, permissions: ['imodels_webview', 'imodels_read'] }];
    assert.deepEqual((await context.api.put(other, { rolePermissions })).body, { rolePermissions });
    assert.deepEqual((await context.api.get(other)).body, { rolePermissions });
    assert.deepEqual((await context.api.get(`/imodels/${made.id}/rolepermissions`)).body, { rolePermissions });
    assert.deepEqual((await context.api.patch(other, { rolePermissions: [] })).body, { rolePermissions });
    assert.deepEqual((await context.api.put(other, { rolePermissions: [] })).body, { rolePermissions: [] });
  });

  test('roles and members can be read individually, as can the list of all permissions', async () => {
    const own = await context.server.iTwin();
    const base = `/accesscontrol/itwins/${own}`;
    const roleId = await context.server.grant(own, 'max', ['imodels_read']);
    const { role } = (await context.api.get(`${base}/roles/${roleId}`)).body as {
      role: { id: string; permissions: string[] };
    };
    assert.deepEqual([role.id, role.permissions], [roleId, ['imodels_read']]);
    const { roles } = (await context.api.get(`${base}/roles`)).body as { roles: { id: string }[] };
    assert.deepEqual(
      roles.map(({ id }) => id),
      [roleId],
    );
    const { member } = (await context.api.get(`${base}/members/users/${people.max.id}`)).body as {
      member: { email: string; roles: { id: string }[] };
    };
    assert.deepEqual([member.email, member.roles.map(({ id }) => id)], [people.max.email, [roleId]]);
    assert.equal((await context.api.get(`${base}/members/users/${people.eve.id}`)).status, 404);
    const { role: writers } = (
      await context.api.post(`${base}/roles`, { displayName: 'writers', permissions: ['imodels_write'] })
    ).body as { role: { id: string } };
    const changed = (await context.api.patch(`${base}/members/users/${people.max.id}`, { roleIds: [writers.id] }))
      .body as { member: { roles: { id: string }[] } };
    assert.deepEqual(
      changed.member.roles.map(({ id }) => id),
      [writers.id],
    );
    const made = await makeIModel(context.olivia, own);
    const userPermissions = [{ userId: people.max.id, permissions: ['imodels_webview'] }];
    await context.api.put(`/imodels/${made.id}/userpermissions`, { userPermissions });
    assert.deepEqual((await context.api.get(`/imodels/${made.id}/userpermissions`)).body, { userPermissions });
    const { permissions } = (await context.api.get('/accesscontrol/permissions')).body as { permissions: string[] };
    assert.ok(
      ['imodels_webview', 'imodels_delete', 'administration_manage_roles', 'webhooks_maintainer'].every((name) =>
        permissions.includes(name),
      ),
    );
    assert.ok(!permissions.includes('organization_administrator'));
  });

  for (const method of ['PUT', 'PATCH'] as const) {
    test(`an empty grant to a role or a user closes an iModel that was open (${method})`, async () => {
      const own = await context.server.iTwin();
      const role = await context.server.grant(own, 'max', ['imodels_write']);
      const max = await context.server.as('max');
      for (const [path, body] of [
        ['rolepermissions', { rolePermissions: [{ roleId: role, permissions: [] }] }],
        ['userpermissions', { userPermissions: [{ userId: people.max.id, permissions: [] }] }],
      ] as const) {
        const made = await makeIModel(context.olivia, own);
        assert.equal((await max.get(`/imodels/${made.id}`)).status, 200);
        const set = await context.api.send(method, `/imodels/${made.id}/${path}`, body);
        assert.deepEqual([set.status, set.body], [200, body]);
        assert.deepEqual((await context.api.get(`/imodels/${made.id}/${path}`)).body, body);
        assert.equal(
          ((await context.api.get(`/imodels/${made.id}`)).body as { iModel: { isSecured: boolean } }).iModel.isSecured,
          true,
        );
        assert.equal((await max.get(`/imodels/${made.id}`)).status, 404);
        assert.equal((await max.post(`/imodels/${made.id}/briefcases`, {})).status, 404);
        assert.ok(!JSON.stringify((await max.get(`/imodels?iTwinId=${own}`)).body).includes(made.id));
        await context.api.put(`/imodels/${made.id}/${path}`, { [Object.keys(body)[0] as string]: [] });
        assert.equal((await max.get(`/imodels/${made.id}`)).status, 200);
      }
    });
  }

  /** An iModel that named one role of Max, who has another one on the iTwin; then the first role was deleted. */
  const closedByDeletedRole = async (): Promise<MadeIModel> => {
    const own = await context.server.iTwin();
    const role = await context.server.grant(own, 'max', ['imodels_webview']);
    await context.server.grant(own, 'max', ['imodels_write']);
    const made = await makeIModel(context.olivia, own);
    await context.api.put(`/imodels/${made.id}/rolepermissions`, {
      rolePermissions: [{ roleId: role, permissions: ['imodels_webview'] }],
    });
    await context.api.delete(`/accesscontrol/itwins/${own}/roles/${role}`);
    return made;
  };

  test('an iModel whose only role was deleted stays closed after an update that names no role', async () => {
    const made = await closedByDeletedRole();
    assert.equal((await context.api.patch(`/imodels/${made.id}/rolepermissions`, { rolePermissions: [] })).status, 200);
    assert.equal((await (await context.server.as('max')).get(`/imodels/${made.id}`)).status, 404);
  });

  test('a user of the users file can receive permissions before the first sign-in', async () => {
    const own = await context.server.iTwin();
    const made = await makeIModel(context.olivia, own);
    const { db } = context.server.services.database;
    assert.equal(
      await db.selectFrom('user_account').select('id').where('id', '=', people.newcomer.id).executeTakeFirst(),
      undefined,
    );
    const userPermissions = [{ userId: people.newcomer.id, permissions: ['imodels_read'] }];
    const set = await context.api.put(`/imodels/${made.id}/userpermissions`, { userPermissions });
    assert.deepEqual([set.status, set.body], [200, { userPermissions }]);
    assert.equal((await (await context.server.as('newcomer')).get(`/imodels/${made.id}`)).status, 200);
    const stranger = await context.api.put(`/imodels/${made.id}/userpermissions`, {
      userPermissions: [{ userId: randomUUID(), permissions: [] }],
    });
    assert.deepEqual([stranger.status, (stranger.body as WireError).error.code], [404, 'UserNotFound']);
  });

  test('role permissions on an iModel require webview on its iTwin', async () => {
    const own = await context.server.iTwin();
    const role = await context.server.grant(own, 'max', []);
    const made = await makeIModel(context.olivia, own);
    await context.api.put(`/imodels/${made.id}/rolepermissions`, {
      rolePermissions: [{ roleId: role, permissions: ['imodels_manage'] }],
    });
    const max = await context.server.as('max');
    assert.equal((await max.get(`/imodels/${made.id}`)).status, 404);
    await context.server.grant(own, 'max', ['imodels_webview']);
    assert.equal((await max.get(`/imodels/${made.id}`)).status, 200);
    assert.equal((await permissionsOf('max', made.id)).length, 4);
  });

  test('removing a role closes an iModel that names it', async () => {
    const made = await closedByDeletedRole();
    assert.equal((await (await context.server.as('max')).get(`/imodels/${made.id}`)).status, 404);
  });

  test('lists omit what the caller may not see, unless the caller manages the iTwin', async () => {
    const own = await context.server.iTwin();
    await context.server.grant(own, 'max', ['imodels_webview']);
    const [open, closed] = [await makeIModel(context.olivia, own), await makeIModel(context.olivia, own)];
    await context.api.put(`/imodels/${closed.id}/userpermissions`, {
      userPermissions: [{ userId: people.olivia.id, permissions: ['imodels_manage'] }],
    });
    const seenBy = async (who: 'max' | 'admin'): Promise<string[]> => {
      const { client, authorization } = await official(context.server, who);
      return (await all(client.iModels.getMinimalList({ authorization, urlParams: { iTwinId: own } })))
        .map(({ id }) => id)
        .toSorted();
    };
    assert.deepEqual(await seenBy('max'), [open.id]);
    assert.deepEqual(await seenBy('admin'), [open.id, closed.id].toSorted());
    await context.server.grant(own, 'max', ['imodels_manage']);
    assert.deepEqual(await seenBy('max'), [open.id, closed.id].toSorted());
  });

  test('callers without read permission get no download links', async () => {
    const own = await context.server.iTwin();
    await context.server.grant(own, 'max', ['imodels_webview']);
    const made = await makeIModel(context.olivia, own, { changesets: 1 });
    const max = await official(context.server, 'max');
    const as = { authorization: max.authorization, iModelId: made.id };
    assert.equal((await max.client.baselineFiles.getSingle(as))._links.download, null);
    assert.equal((await max.client.changesets.getSingle({ ...as, changesetIndex: 1 }))._links.download, null);
    const [listed] = await all(max.client.changesets.getRepresentationList(as));
    assert.equal(listed?._links.download, null);
  });

  test('unknown roles and users are refused, and nothing changes', async () => {
    const own = await context.server.iTwin();
    const made = await makeIModel(context.olivia, own);
    const role = await context.api.put(`/imodels/${made.id}/rolepermissions`, {
      rolePermissions: [{ roleId: randomUUID(), permissions: ['imodels_read'] }],
    });
    assert.deepEqual([role.status, (role.body as WireError).error.code], [404, 'RoleNotFound']);
    const base = `/accesscontrol/itwins/${own}`;
    const { role: created } = (await context.api.post(`${base}/roles`, { displayName: 'r' })).body as {
      role: { id: string };
    };
    const unknown = await context.api.post(`${base}/members/users`, {
      members: [{ email: 'nobody@example.test', roleIds: [created.id] }],
    });
    assert.deepEqual(
      [unknown.status, (unknown.body as WireError).error.details?.[0]?.message],
      [
        422,
        "'nobody@example.test' is not a known user. This server sends no invitations: users are known once they signed in or stand in the users file.",
      ],
    );
    const noRole = await context.api.post(`${base}/members/users`, {
      members: [{ email: people.max.email, roleIds: [randomUUID()] }],
    });
    assert.equal((noRole.body as WireError).error.code, 'RoleNotFound');
    assert.equal(
      (await context.api.patch(`${base}/members/users/${randomUUID()}`, { roleIds: [created.id] })).status,
      404,
    );
    const bad = await context.api.post(`${base}/roles`, { displayName: 'r', permissions: ['imodels_fly'] });
    assert.equal(bad.status, 422);
    assert.deepEqual(((await context.api.get(`${base}/members/users`)).body as { members: object[] }).members, []);
  });
});
