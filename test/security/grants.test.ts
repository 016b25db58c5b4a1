/**
 * Attacks by a member who may invite others, or manage roles, and wants more permissions, for the own account or that of an
 * accomplice, by each way of granting permissions.
 */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test } from 'node:test';
import { administrationPermissions, imodelPermissions, type Permission } from '../../apps/server/src/domain.ts';
import type { Answer, Api, WireError } from '../support/api.ts';
import { people } from '../support/server.ts';
import { onEachDatabase } from '../support/suite.ts';

const every: Permission[] = [...imodelPermissions, ...administrationPermissions];

onEachDatabase('Privilege escalation by grants', {}, (context) => {
  const refused = (answer: Answer, what: string): void =>
    assert.deepEqual([answer.status, (answer.body as WireError).error?.code], [403, 'InsufficientPermissions'], what);

  /** An iTwin on which Max has some permissions, and a role for each permission, created by the owner. */
  async function attacked(
    permissions: Permission[],
  ): Promise<{ iTwinId: string; base: string; max: Api; roleOf: Map<Permission, string>; own: string }> {
    const iTwinId = await context.server.iTwin();
    const base = `/accesscontrol/itwins/${iTwinId}`;
    const roleOf = new Map<Permission, string>();
    for (const permission of every)
      roleOf.set(
        permission,
        idIn(await context.api.post(`${base}/roles`, { displayName: permission, permissions: [permission] }), 'role'),
      );
    const own = await context.server.grant(iTwinId, 'max', permissions);
    return { iTwinId, base, max: await context.server.as('max'), roleOf, own };
  }
  const idIn = ({ body }: Answer, key: string): string => (body as Record<string, { id: string }>)[key]?.id ?? '';
  const permissionsOf = async (api: Api, base: string): Promise<string[]> =>
    ((await api.get(`${base}/permissions`)).body as { permissions: string[] }).permissions;

  test('a caller who may invite members cannot assign a role with more permissions to anyone', async () => {
    const held: Permission[] = ['administration_invite_member', 'imodels_read'];
    const { base, max, roleOf, own } = await attacked(held);
    const before = await permissionsOf(max, base);
    const [poor, rich] = [
      idIn(await max.post(`${base}/groups`, { name: 'poor' }), 'group'),
      idIn(await context.api.post(`${base}/groups`, { name: 'rich' }), 'group'),
    ];
    await context.api.post(`${base}/members/groups`, {
      members: [{ groupId: rich, roleIds: [roleOf.get('imodels_manage')] }],
    });
    await context.api.post(`${base}/members/groups`, {
      members: [{ groupId: poor, roleIds: [roleOf.get('imodels_webview')] }],
    });
    for (const permission of every.filter(
      (each) => !['administration_invite_member', 'imodels_read', 'imodels_webview'].includes(each),
    )) {
      const roleIds = [own, roleOf.get(permission)];
      for (const who of ['max', 'newcomer'] as const)
        refused(
          await max.post(`${base}/members/users`, { members: [{ userId: people[who].id, roleIds }] }),
          `${permission} to ${who}`,
        );
      refused(
        await max.patch(`${base}/members/users/${people.max.id}`, { roleIds }),
        `${permission}, in place of the own roles`,
      );
      refused(
        await max.post(`${base}/members/groups`, { members: [{ groupId: poor, roleIds }] }),
        `${permission} to a group`,
      );
      refused(
        await max.patch(`${base}/members/groups/${poor}`, { roleIds }),
        `${permission}, in place of the roles of a group`,
      );
    }
    refused(await max.patch(`${base}/groups/${rich}`, { members: [people.max.id] }), 'by joining a group');
    refused(await max.post(`${base}/members/owners`, { email: people.max.email }), 'by becoming an owner');
    assert.deepEqual(await permissionsOf(max, base), before);
    // Permissions that they have they may grant, and permissions that others granted they may keep.
    assert.equal(
      (
        await max.post(`${base}/members/users`, {
          members: [{ userId: people.newcomer.id, roleIds: [roleOf.get('imodels_read'), own] }],
        })
      ).status,
      201,
    );
    assert.equal((await max.patch(`${base}/groups/${poor}`, { members: [people.newcomer.id] })).status, 200);
    await context.api.post(`${base}/members/users`, {
      members: [{ userId: people.newcomer.id, roleIds: [roleOf.get('imodels_manage')] }],
    });
    assert.equal(
      (
        await max.patch(`${base}/members/users/${people.newcomer.id}`, {
          roleIds: [roleOf.get('imodels_manage'), roleOf.get('imodels_webview')],
        })
      ).status,
      200,
    );
    assert.equal((await max.patch(`${base}/groups/${rich}`, { name: randomUUID(), members: [] })).status, 200);
  });

  test('a caller who may manage roles cannot create or extend a role beyond the own permissions', async () => {
    const { base, max, roleOf, own } = await attacked(['administration_manage_roles', 'imodels_write']);
    const before = await permissionsOf(max, base);
    for (const permission of every.filter((each) => !before.includes(each))) {
      refused(
        await max.post(`${base}/roles`, { displayName: 'mine', permissions: [permission] }),
        `a role of ${permission}`,
      );
      refused(
        await max.patch(`${base}/roles/${own}`, { permissions: ['administration_manage_roles', permission] }),
        `${permission} for the own role`,
      );
      refused(
        await max.patch(`${base}/roles/${roleOf.get('imodels_webview')}`, { permissions: [permission] }),
        `${permission} for another role`,
      );
    }
    assert.deepEqual(await permissionsOf(max, base), before);
    assert.equal((await max.post(`${base}/roles`, { displayName: 'mine', permissions: ['imodels_read'] })).status, 201);
    // A role that already has more permissions may be renamed and reduced.
    const richer = idIn(
      await context.api.post(`${base}/roles`, {
        displayName: 'richer',
        permissions: ['imodels_manage', 'imodels_delete'],
      }),
      'role',
    );
    assert.equal(
      (await max.patch(`${base}/roles/${richer}`, { displayName: 'renamed', permissions: ['imodels_manage'] })).status,
      200,
    );
    refused(
      await max.patch(`${base}/roles/${richer}`, { permissions: ['imodels_manage', 'imodels_delete'] }),
      'what was taken away',
    );
  });

  test('a caller who manages one iModel grants nothing on its iTwin', async () => {
    const { iTwinId, base, max } = await attacked([]);
    const iModelId = idIn(await context.api.post('/imodels', { iTwinId, name: randomUUID() }), 'iModel');
    await context.api.put(`/imodels/${iModelId}/userpermissions`, {
      userPermissions: [{ userId: people.max.id, permissions: ['imodels_manage'] }],
    });
    const before = await permissionsOf(max, base);
    for (const permission of ['imodels_delete', ...administrationPermissions, 'administrator'])
      assert.equal(
        (
          await max.patch(`/imodels/${iModelId}/userpermissions`, {
            userPermissions: [{ userId: people.max.id, permissions: [permission] }],
          })
        ).status,
        422,
        permission,
      );
    assert.equal((await max.delete(`/imodels/${iModelId}`)).status, 403);
    assert.deepEqual(await permissionsOf(max, base), before);
  });
});
