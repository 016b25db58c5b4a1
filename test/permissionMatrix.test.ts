import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test } from 'node:test';
import { withIncluded } from '../apps/server/src/access/permissions.ts';
import type { Route } from '../apps/server/src/api/route.ts';
import { routes } from '../apps/server/src/api/routes.ts';
import { administrationPermissions, imodelPermissions, type Permission } from '../apps/server/src/domain.ts';
import type { Api, WireError } from './support/api.ts';
import { official, makeIModel } from './support/clients.ts';
import { onEachDatabase } from './support/suite.ts';

/** Every permission that a role may contain, one at a time; then no role, and an empty role. */
const roles: { name: string; permissions: Permission[] | 'no role' }[] = [
  ...[...imodelPermissions, ...administrationPermissions].map((permission) => ({
    name: permission,
    permissions: [permission],
  })),
  { name: 'a role without permissions', permissions: [] },
  { name: 'no role', permissions: 'no role' },
];

type Verdict = 'allowed' | 403 | 404;

/** The expected outcome for a caller with these permissions, by the declaration of the route. */
function verdictOf(route: Route, held: Permission[] | 'no role'): Verdict {
  const { access } = route;
  if (access.on === 'caller') return 'allowed';
  const member = held !== 'no role';
  const permissions = withIncluded(member ? held : []);
  if (access.on === 'itwin') {
    if (access.permission === 'member') return member ? 'allowed' : 404;
    return permissions.has(access.permission) ? 'allowed' : member ? 403 : 404;
  }
  return permissions.has(access.permission) ? 'allowed' : permissions.has('imodels_webview') ? 403 : 404;
}

/** The outcome of an answer: anything but a refusal of access counts as allowed, also a 404 for a nested resource, a 409 or a 422. */
function verdictIn(answer: { status: number; body: unknown }): Verdict {
  const code = (answer.body as WireError | undefined)?.error?.code;
  if (code === 'InsufficientPermissions') return 403;
  // The repositories of the fixture exist, so only a caller who may not see the iTwin gets a 404 for them.
  if (
    code !== undefined &&
    ['iModelNotFound', 'iTwinNotFound', 'ItwinNotFound', 'iTwinRepositoryNotFound'].includes(code)
  )
    return 404;
  return 'allowed';
}

onEachDatabase('The permission matrix', {}, (context) => {
  /** A repository of an iTwin, created by its owner. */
  async function repositoryIn(iTwinId: string, owner: 'olivia' | 'eve'): Promise<string> {
    const api = await context.server.as(owner);
    const { repository } = (
      await api.post(`/itwins/${iTwinId}/repositories`, { class: 'Forms', uri: `https://${randomUUID()}.example` })
    ).body as { repository: { id: string } };
    return repository.id;
  }

  /** A request of a route for one iModel in one iTwin, with just enough content for its access check. */
  function send(api: Api, route: Route, iTwinId: string, iModelId: string, repositoryId: string = randomUUID()) {
    const named: Record<string, string> = {
      iTwinId,
      iModelId,
      changeset: '1',
      briefcaseId: '9999',
      userId: randomUUID(),
      roleId: randomUUID(),
      title: 'suite',
      version: '1',
      mode: '1',
      operation: 'IModelReadRpcInterface-3.7.0-getConnectionProps',
      namedVersionId: randomUUID(),
      groupId: randomUUID(),
      shareId: randomUUID(),
      webhookId: randomUUID(),
      messageId: randomUUID(),
      invitationId: randomUUID(),
      repositoryId,
      ownerId: randomUUID(),
    };
    let url = route.path.replace(/:(\w+)/g, (_, name: string) => named[name] ?? assert.fail(`no sample for :${name}`));
    if (route.access.on === 'itwin' && route.access.from === 'query') url += `?iTwinId=${iTwinId}`;
    const bodies: Record<string, unknown> = {
      'clone-imodel': { iTwinId, name: randomUUID(), changesetIndex: 9999 },
      'fork-imodel': { iTwinId, name: randomUUID(), changesetIndex: 9999 },
      'create-imodel': { iTwinId, name: randomUUID(), creationMode: 'fromBaseline' },
    };
    return api.send(route.method, url, route.body === undefined ? undefined : (bodies[route.operationId] ?? {}));
  }

  for (const { name, permissions } of roles) {
    test(`${name}: every operation answers as its route declares, in the own tenant and in another`, async () => {
      const own = await context.server.iTwin();
      if (permissions !== 'no role') await context.server.grant(own, 'max', permissions);
      const ownModel = await makeIModel(context.olivia, own);
      const foreignITwin = await context.server.iTwin('eve');
      const foreignModel = await makeIModel(await official(context.server, 'eve'), foreignITwin);
      const max = await context.server.as('max');
      const [ownRepository, foreignRepository] = [
        await repositoryIn(own, 'olivia'),
        await repositoryIn(foreignITwin, 'eve'),
      ];
      for (const route of routes) {
        const here = await send(max, route, own, ownModel.id, ownRepository);
        assert.equal(
          verdictIn(here),
          verdictOf(route, permissions),
          `${route.operationId}: ${here.status} ${JSON.stringify(here.body)}`,
        );
        const there = await send(max, route, foreignITwin, foreignModel.id, foreignRepository);
        assert.equal(
          verdictIn(there),
          verdictOf(route, 'no role'),
          `${route.operationId} in another tenant: ${there.status} ${JSON.stringify(there.body)}`,
        );
        if (route.operationId === 'delete-imodel' && here.status === 204)
          Object.assign(ownModel, await makeIModel(context.olivia, own));
      }
    });
  }

  for (const who of ['olivia', 'admin'] as const) {
    test(`${who === 'olivia' ? 'the owner' : 'an Organization Administrator'} has every permission on the own iTwin and none in another organization`, async () => {
      const own = await context.server.iTwin();
      const ownModel = await makeIModel(context.olivia, own);
      const foreignITwin = await context.server.iTwin('eve');
      const foreignModel = await makeIModel(await official(context.server, 'eve'), foreignITwin);
      const api = await context.server.as(who);
      const [ownRepository, foreignRepository] = [
        await repositoryIn(own, 'olivia'),
        await repositoryIn(foreignITwin, 'eve'),
      ];
      for (const route of routes) {
        // Only an administrator may delete an iTwin, which happens at the end.
        if (['delete-imodel', 'delete-itwin'].includes(route.operationId)) continue;
        const here = await send(api, route, own, ownModel.id, ownRepository);
        assert.equal(verdictIn(here), 'allowed', `${route.operationId}: ${here.status} ${JSON.stringify(here.body)}`);
        const there = await send(api, route, foreignITwin, foreignModel.id, foreignRepository);
        assert.equal(verdictIn(there), verdictOf(route, 'no role'), route.operationId);
      }
      assert.equal((await api.delete(`/imodels/${ownModel.id}`)).status, 204);
      assert.equal((await api.delete(`/itwins/${own}`)).status, who === 'admin' ? 204 : 403);
    });
  }

  test('permissions of an iModel replace those of its iTwin, wider and narrower, for every operation', async () => {
    const own = await context.server.iTwin();
    await context.server.grant(own, 'max', ['imodels_read']);
    const made = await makeIModel(context.olivia, own);
    const max = await context.server.as('max');
    const maxId = (await context.server.as('max').then((api) => api.get(`/imodels/${made.id}/users`))).body as {
      users: { id: string; displayName: string }[];
    };
    const userId = maxId.users.find(({ displayName }) => displayName.startsWith('max'))?.id;
    for (const given of [
      ['imodels_webview'],
      ['imodels_read'],
      ['imodels_write'],
      ['imodels_manage'],
    ] as Permission[][]) {
      assert.equal(
        (
          await context.api.put(`/imodels/${made.id}/userpermissions`, {
            userPermissions: [{ userId, permissions: given }],
          })
        ).status,
        200,
      );
      for (const route of routes.filter(({ access }) => access.on === 'imodel')) {
        if (route.operationId.includes('permissions') && route.method !== 'GET') continue;
        // Rule of the API: some operations check the iTwin only, on which Max may read.
        const counts =
          route.access.on === 'imodel' && route.access.level === 'iTwin' ? (['imodels_read'] as Permission[]) : given;
        const answer = await send(max, route, own, made.id);
        assert.equal(
          verdictIn(answer),
          verdictOf(route, counts),
          `${route.operationId} with ${given.join()}: ${answer.status} ${JSON.stringify(answer.body)}`,
        );
      }
    }
    await context.api
      .put(`/imodels/${made.id}/userpermissions`, {
        userPermissions: [{ userId: 'nobody', permissions: ['imodels_read'] }],
      })
      .then(({ status }) => assert.equal(status, 404));
  });
});
