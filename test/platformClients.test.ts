import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { before, test } from 'node:test';
import {
  ITwinClass,
  ITwinsAccessClient,
  ITwinSubClass,
  RepositoryClass,
  RepositorySubClass,
} from '@itwin/itwins-client';
import { ITwinsAccessClient as FirstITwinsAccessClient } from 'itwins-client-first';
import sharp from 'sharp';
import { absentAddresses } from '../apps/server/src/api/absent.ts';
import type { Answer, Api, WireError } from './support/api.ts';
import { callAs, methodsOfClass } from './support/coverage.ts';
import { people } from './support/server.ts';
import { onEachDatabase, type Context } from './support/suite.ts';

/** The answer of the clients, which never throw, so each call checks the status. */
interface ClientAnswer {
  status: number;
  data?: unknown;
  error?: { code: string } | undefined;
}

/** A new iTwin with a repository, for one call. */
interface Fixture {
  iTwinId: string;
  repositoryId: string;
}

async function make(api: Api): Promise<Fixture> {
  const { iTwin } = (await api.post('/itwins', { displayName: randomUUID(), class: 'Thing', subClass: 'Asset' }))
    .body as { iTwin: { id: string } };
  const { repository } = (
    await api.post(`/itwins/${iTwin.id}/repositories`, {
      class: 'GeographicInformationSystem',
      subClass: 'WebMapService',
      uri: 'https://maps.example',
    })
  ).body as { repository: { id: string } };
  await api.post(`/itwins/favorites/${iTwin.id}`);
  await api.post(`/itwins/recents/${iTwin.id}`);
  return { iTwinId: iTwin.id, repositoryId: repository.id };
}

/** Every method of the published iTwins clients, with its expected status and a check of its data. */
const iTwinsCalls: Record<
  string,
  {
    status: number;
    call: (client: ITwinsAccessClient, token: string, made: Fixture) => Promise<ClientAnswer>;
    check?: (data: unknown, made: Fixture) => void;
  }
> = {
  queryAsync: {
    status: 200,
    call: (c, token) => c.queryAsync(token, ITwinSubClass.Asset, { top: 1000, type: undefined as never }),
    check: containsCreated,
  },
  createiTwin: {
    status: 201,
    call: (c, token) =>
      c.createiTwin(token, {
        displayName: randomUUID(),
        number: randomUUID(),
        class: ITwinClass.Endeavor,
        subClass: ITwinSubClass.Project,
        dataCenterLocation: 'East US',
        status: 'Trial',
      }),
    check: (data) => assert.equal((data as { status: string }).status, 'Trial'),
  },
  updateiTwin: {
    status: 200,
    call: (c, token, { iTwinId }) => c.updateiTwin(token, iTwinId, { displayName: `renamed ${iTwinId}` }),
    check: (data, { iTwinId }) => assert.equal((data as { displayName: string }).displayName, `renamed ${iTwinId}`),
  },
  deleteiTwin: { status: 204, call: (c, token, { iTwinId }) => c.deleteiTwin(token, iTwinId) },
  createRepository: {
    status: 201,
    call: (c, token, { iTwinId }) =>
      c.createRepository(token, iTwinId, {
        class: RepositoryClass.GeographicInformationSystem,
        subClass: RepositorySubClass.MapServer,
        uri: 'https://other.example',
      }),
    check: (data) => assert.equal((data as { subClass: string }).subClass, 'MapServer'),
  },
  deleteRepository: {
    status: 204,
    call: (c, token, { iTwinId, repositoryId }) => c.deleteRepository(token, iTwinId, repositoryId),
  },
  queryRepositoriesAsync: {
    status: 200,
    call: (c, token, { iTwinId }) =>
      c.queryRepositoriesAsync(token, iTwinId, { class: 'GeographicInformationSystem', subClass: 'WebMapService' }),
    check: (data, { repositoryId }) =>
      assert.deepEqual(
        (data as { id: string }[]).map(({ id }) => id),
        [repositoryId],
      ),
  },
  getAsync: {
    status: 200,
    call: (c, token, { iTwinId }) => c.getAsync(token, iTwinId, 'representation'),
    check: (data, { iTwinId }) => assert.equal((data as { id: string }).id, iTwinId),
  },
  queryFavoritesAsync: {
    status: 200,
    call: (c, token) => c.queryFavoritesAsync(token, ITwinSubClass.Asset, { top: 1000 }),
    check: containsCreated,
  },
  queryRecentsAsync: {
    status: 200,
    call: (c, token) => c.queryRecentsAsync(token, ITwinSubClass.Asset),
    check: containsCreated,
  },
  getPrimaryAccountAsync: { status: 200, call: (c, token) => c.getPrimaryAccountAsync(token), check: isAccount },
  getAccountAsync: {
    status: 200,
    call: (c, token, { iTwinId }) => c.getAccountAsync(token, iTwinId, 'representation'),
    check: (data) => {
      isAccount(data);
      assert.equal(typeof (data as { createdDateTime: string }).createdDateTime, 'string');
    },
  },
};

function containsCreated(data: unknown, { iTwinId }: Fixture): void {
  const iTwins = data as { id: string; subClass: string }[];
  assert.ok(iTwins.some(({ id }) => id === iTwinId));
  assert.ok(iTwins.every(({ subClass }) => subClass === 'Asset'));
}
function isAccount(data: unknown): void {
  const account = data as { id: string; class: string };
  assert.deepEqual([account.id, account.class], [people.olivia.organizationId, 'Account']);
}

onEachDatabase('The iTwins clients', {}, (context) => {
  const clients = [
    {
      label: 'itwins-client 1.1.0',
      packageName: 'itwins-client-first',
      make: () => new FirstITwinsAccessClient(`${context.server.origin}/itwins`) as unknown as ITwinsAccessClient,
    },
    {
      label: 'itwins-client 1.6.1',
      packageName: '@itwin/itwins-client',
      make: () => new ITwinsAccessClient(`${context.server.origin}/itwins`),
    },
  ];

  test('are covered: every public method of theirs has a test', () => {
    assert.deepEqual(Object.keys(iTwinsCalls).toSorted(), methodsOfClass('@itwin/itwins-client', 'iTwinsClient'));
    assert.ok(methodsOfClass('itwins-client-first', 'iTwinsClient').every((method) => method in iTwinsCalls));
  });

  for (const { label, packageName, make: makeClient } of clients)
    for (const method of methodsOfClass(packageName, 'iTwinsClient'))
      test(`${label}: ${method}`, async () => {
        const { status, call, check } = iTwinsCalls[method] as (typeof iTwinsCalls)[string];
        const made = await make(context.api);
        // Only an administrator may delete an iTwin.
        const token = `Bearer ${await context.server.token(method === 'deleteiTwin' ? 'admin' : 'olivia')}`;
        const answer = await callAs(`${label} \`${method}\``, () => call(makeClient(), token, made));
        assert.deepEqual([answer.status, answer.error], [status, undefined]);
        check?.(answer.data, made);
      });

  test('get the error codes and details that they compare', async () => {
    const client = new ITwinsAccessClient(`${context.server.origin}/itwins`);
    const token = `Bearer ${await context.server.token('olivia')}`;
    const counterpart = {
      displayName: randomUUID(),
      number: randomUUID(),
      class: ITwinClass.Thing,
      subClass: ITwinSubClass.Asset,
    };
    const created = await client.createiTwin(token, counterpart);
    const again = await client.createiTwin(token, counterpart);
    assert.deepEqual(
      [again.status, again.error?.code, again.error?.details?.map(({ code, target }) => [code, target])],
      [
        409,
        'iTwinExists',
        [
          ['InvalidValue', 'number'],
          ['InvalidValue', 'displayName'],
        ],
      ],
    );
    const without = await client.createiTwin(token, { displayName: randomUUID(), subClass: ITwinSubClass.Asset });
    assert.deepEqual(
      [without.status, without.error?.code, without.error?.details?.[0]?.code, without.error?.details?.[0]?.target],
      [422, 'InvalidiTwinsRequest', 'MissingRequiredProperty', 'class'],
    );
    const noUri = await client.createRepository(token, created.data?.id ?? '', {
      class: RepositoryClass.GeographicInformationSystem,
      subClass: RepositorySubClass.WebMapService,
      uri: '',
    });
    assert.deepEqual(
      [noUri.status, noUri.error?.details?.[0]?.code, noUri.error?.details?.[0]?.target],
      [422, 'MissingRequiredProperty', 'uri'],
    );
    const gone = await client.deleteRepository(token, created.data?.id ?? '', randomUUID());
    assert.deepEqual([gone.status, gone.error?.code], [404, 'iTwinRepositoryNotFound']);
    const invalid = await client.queryAsync(token, 'Invalid' as ITwinSubClass);
    assert.deepEqual([invalid.status, invalid.error?.details?.[0]?.target], [422, 'subClass']);
  });
});

/** One request of a client that npm does not offer here, as its public source sends it. */
interface Request {
  client: 'itwins-client 3.0' | 'access-control-client 3.7 and 4.1';
  method: string;
  http: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  path: string;
  body?: unknown;
  headers?: Record<string, string>;
  status: number;
  /** Checks what the client or its users read from the answer. */
  check?: (body: never) => void;
  as?: 'admin';
}

/** All resources that the requests need, in one iTwin. */
interface Setting {
  iTwinId: string;
  repositoryId: string;
  roleId: string;
  groupId: string;
  memberGroupId: string;
  picture: Buffer;
}

const json = { 'content-type': 'application/json' };
const links = ({ _links }: { _links: { self: { href: string } } }): void =>
  assert.ok(_links.self.href.startsWith('http'));

function requestsOf({ iTwinId, repositoryId, roleId, groupId, memberGroupId, picture }: Setting): Request[] {
  const twins = (
    method: string,
    http: Request['http'],
    path: string,
    status: number,
    more: Partial<Request> = {},
  ): Request => ({ client: 'itwins-client 3.0', method, http, path: `/itwins${path}`, status, headers: json, ...more });
  const access = (
    method: string,
    http: Request['http'],
    path: string,
    status: number,
    more: Partial<Request> = {},
  ): Request => ({
    client: 'access-control-client 3.7 and 4.1',
    method,
    http,
    path: `/accesscontrol/itwins${path}`,
    status,
    headers: { ...json, accept: 'application/vnd.bentley.itwin-platform.v2+json' },
    ...more,
  });
  const representation = { ...json, prefer: 'return=representation' };
  const max = people.max;
  return [
    twins(
      'getITwins',
      'GET',
      "?subClass=Asset&$filter=status eq 'Active'&$orderby=displayName desc&$select=id,displayName,subClass&$top=5",
      200,
      {
        check: ({ iTwins, _links }: { iTwins: object[]; _links: never }) => (
          links({ _links }),
          assert.ok(iTwins.length > 0)
        ),
      },
    ),
    twins('getFavoritesITwins', 'GET', '/favorites/?subClass=Asset', 200, {
      headers: { ...representation, 'x-itwin-query-scope': 'all' },
      check: ({ iTwins }: { iTwins: { parentId: string; createdBy: string }[] }) =>
        assert.deepEqual([typeof iTwins[0]?.parentId, typeof iTwins[0]?.createdBy], ['string', 'string']),
    }),
    twins('addITwinToFavorites', 'POST', `/favorites/${iTwinId}`, 204),
    twins('removeITwinFromFavorites', 'DELETE', `/favorites/${iTwinId}`, 204),
    twins('addITwinToMyRecents', 'POST', `/recents/${iTwinId}`, 204),
    twins('getRecentUsedITwins', 'GET', '/recents?$top=10', 200, { check: links }),
    twins('uploadITwinImage', 'PUT', `/${iTwinId}/image`, 201, {
      body: picture,
      headers: { 'content-type': 'image/png' },
    }),
    twins('getITwinImage', 'GET', `/${iTwinId}/image`, 200, {
      check: ({ image }: { image: { id: string; smallImageName: string } }) =>
        assert.ok(image.smallImageName.includes(image.id)),
    }),
    twins('getITwin', 'GET', `/${iTwinId}`, 200, {
      headers: representation,
      check: ({ iTwin }: { iTwin: { imageName: string; image: string; parentId: string } }) =>
        assert.deepEqual(
          [typeof iTwin.imageName, typeof iTwin.image, iTwin.parentId],
          ['string', 'string', people.olivia.organizationId],
        ),
    }),
    twins('deleteITwinImage', 'DELETE', `/${iTwinId}/image`, 204),
    twins('getITwinAccount', 'GET', `/${iTwinId}/account`, 200, {
      headers: representation,
      check: ({ iTwin }: { iTwin: { class: string; status: string; createdDateTime: string } }) =>
        assert.deepEqual([iTwin.class, iTwin.status, typeof iTwin.createdDateTime], ['Account', 'Active', 'string']),
    }),
    twins('getPrimaryAccount', 'GET', '/myprimaryaccount', 200),
    twins('createITwin', 'POST', '', 201, {
      body: {
        displayName: randomUUID(),
        number: randomUUID(),
        type: 'Bridge',
        class: 'Thing',
        subClass: 'Asset',
        dataCenterLocation: 'East US',
        status: 'Trial',
        parentId: iTwinId,
      },
      check: ({ iTwin }: { iTwin: { parentId: string } }) => assert.equal(iTwin.parentId, iTwinId),
    }),
    twins('updateItwin', 'PATCH', `/${iTwinId}`, 200, { body: { displayName: `renamed ${iTwinId}` } }),
    twins('createRepository', 'POST', `/${iTwinId}/repositories`, 201, {
      body: {
        class: 'GeographicInformationSystem',
        subClass: 'UrlTemplate',
        uri: 'https://tiles.example/{z}/{x}/{y}.png',
        displayName: 'Tiles',
        authentication: { type: 'Header', key: 'X-Api-Key', value: 'secret' },
        options: { minimumLevel: 10 },
      },
    }),
    twins(
      'getRepositories',
      'GET',
      `/${iTwinId}/repositories/?class=GeographicInformationSystem&subClass=UrlTemplate`,
      200,
      {
        check: ({ repositories }: { repositories: { displayName: string; options: object }[] }) =>
          assert.deepEqual(
            repositories.map(({ displayName, options }) => [displayName, options]),
            [['Tiles', { minimumLevel: 10 }]],
          ),
      },
    ),
    twins('getRepository', 'GET', `/${iTwinId}/repositories/${repositoryId}`, 200, {
      check: ({ repository }: { repository: { id: string; capabilities: object } }) =>
        assert.deepEqual([repository.id, repository.capabilities], [repositoryId, {}]),
    }),
    twins('updateRepository', 'PATCH', `/${iTwinId}/repositories/${repositoryId}`, 200, {
      body: {
        displayName: 'Maps',
        uri: 'https://maps.example/wms',
        class: 'GeographicInformationSystem',
        subClass: 'WebMapService',
      },
      check: ({ repository }: { repository: { displayName: string; uri: string } }) =>
        assert.deepEqual([repository.displayName, repository.uri], ['Maps', 'https://maps.example/wms']),
    }),
    twins('deleteRepository', 'DELETE', `/${iTwinId}/repositories/${repositoryId}`, 204),

    access('permissions.getPermissions', 'GET', '/permissions', 200, {
      check: ({ permissions }: { permissions: string[] }) => assert.ok(permissions.includes('imodels_read')),
    }),
    access('permissions.getITwinPermissions', 'GET', `/${iTwinId}/permissions`, 200),
    access('roles.getITwinRoles', 'GET', `/${iTwinId}/roles`, 200, {
      check: ({ roles }: { roles: { id: string; type: string }[] }) =>
        assert.ok(roles.some(({ id, type }) => id === roleId && type === 'Custom')),
    }),
    access('roles.getITwinRole', 'GET', `/${iTwinId}/roles/${roleId}`, 200, {
      check: ({ role }: { role: { id: string; type: string } }) =>
        assert.deepEqual([role.id, role.type], [roleId, 'Custom']),
    }),
    access('roles.createITwinRole', 'POST', `/${iTwinId}/roles`, 201, {
      body: { displayName: 'new', description: 'd', permissions: [] },
    }),
    access('roles.updateITwinRole', 'PATCH', `/${iTwinId}/roles/${roleId}`, 200, {
      body: { displayName: 'changed', description: 'e', permissions: [] },
    }),
    access('groups.getITwinGroups', 'GET', `/${iTwinId}/groups?$top=1&$skip=1`, 200, {
      check: ({ groups, _links }: { groups: { imsGroups: unknown[] }[]; _links: never }) => (
        links({ _links }),
        assert.deepEqual(
          groups.map(({ imsGroups }) => imsGroups),
          [[]],
        )
      ),
    }),
    access('groups.getITwinGroup', 'GET', `/${iTwinId}/groups/${groupId}`, 200, {
      check: ({ group }: { group: { imsGroups: unknown[]; members: unknown[] } }) =>
        assert.deepEqual([group.imsGroups, group.members], [[], []]),
    }),
    access('groups.createITwinGroup', 'POST', `/${iTwinId}/groups`, 201, {
      body: { name: randomUUID(), description: 'd' },
    }),
    access('groups.updateITwinGroup', 'PATCH', `/${iTwinId}/groups/${groupId}`, 200, {
      body: { name: `renamed ${groupId}`, members: [max.email], imsGroups: [] },
      check: ({ group }: { group: { members: { id: string; email: string; organization: string }[] } }) =>
        assert.deepEqual(
          group.members.map(({ id, email, organization }) => [id, email, organization]),
          [[max.id, max.email, 'Home']],
        ),
    }),
    access('groupMembers.addITwinGroupMembers', 'POST', `/${iTwinId}/members/groups`, 201, {
      body: { members: [{ groupId, roleIds: [roleId] }] },
      check: ({ members }: { members: { id: string }[] }) =>
        assert.deepEqual(
          members.map(({ id }) => id),
          [groupId],
        ),
    }),
    access('groupMembers.queryITwinGroupMembers', 'GET', `/${iTwinId}/members/groups?$top=1`, 200, {
      check: ({ members, _links }: { members: object[]; _links: { next: unknown; self: never } }) => (
        assert.equal(members.length, 1),
        assert.notEqual(_links.next, null)
      ),
    }),
    access('groupMembers.getITwinGroupMember', 'GET', `/${iTwinId}/members/groups/${memberGroupId}`, 200, {
      check: ({ member }: { member: { id: string } }) => assert.equal(member.id, memberGroupId),
    }),
    access('groupMembers.updateITwinGroupMember', 'PATCH', `/${iTwinId}/members/groups/${memberGroupId}`, 200, {
      body: { roleIds: [roleId] },
    }),
    access('groupMembers.removeITwinGroupMember', 'DELETE', `/${iTwinId}/members/groups/${memberGroupId}`, 204),
    access(
      'groupMemberInvitations.queryITwinGroupMemberInvitations',
      'GET',
      `/${iTwinId}/groups/${groupId}/invitations?$top=5`,
      200,
      {
        check: ({ invitations, _links }: { invitations: object[]; _links: never }) => (
          links({ _links }),
          assert.deepEqual(invitations, [])
        ),
      },
    ),
    access('groups.deleteITwinGroup', 'DELETE', `/${iTwinId}/groups/${groupId}`, 204),
    access('userMembers.addITwinUserMembers', 'POST', `/${iTwinId}/members/users`, 201, {
      body: { members: [{ email: max.email, roleIds: [roleId] }], customMessage: 'welcome' },
      check: ({ members, invitations }: { members: { id: string }[]; invitations: object[] }) =>
        assert.deepEqual([members.map(({ id }) => id), invitations], [[max.id], []]),
    }),
    access('userMembers.queryITwinUserMembers', 'GET', `/${iTwinId}/members/users?&$top=1&$skip=0`, 200, {
      check: ({ members, _links }: { members: { id: string }[]; _links: never }) => (
        links({ _links }),
        assert.deepEqual(
          members.map(({ id }) => id),
          [max.id],
        )
      ),
    }),
    access('userMembers.getITwinUserMember', 'GET', `/${iTwinId}/members/users/${max.id}`, 200),
    access('userMembers.updateITwinUserMember', 'PATCH', `/${iTwinId}/members/users/${max.id}`, 200, {
      body: { roleIds: [roleId] },
    }),
    access('userMembers.removeITwinUserMember', 'DELETE', `/${iTwinId}/members/users/${max.id}`, 204),
    access('ownerMembers.addITwinOwnerMember', 'POST', `/${iTwinId}/members/owners`, 201, {
      body: { email: max.email },
      check: ({ member, invitation }: { member: { email: string }; invitation: null }) =>
        assert.deepEqual([member.email, invitation], [max.email, null]),
    }),
    access('ownerMembers.queryITwinOwnerMembers', 'GET', `/${iTwinId}/members/owners?$top=1&$skip=1`, 200, {
      check: ({ members, _links }: { members: object[]; _links: never }) => (
        links({ _links }),
        assert.equal(members.length, 1)
      ),
    }),
    access('ownerMembers.removeITwinOwnerMember', 'DELETE', `/${iTwinId}/members/owners/${max.id}`, 204),
    access(
      'memberInvitations.queryITwinMemberInvitations',
      'GET',
      `/${iTwinId}/members/invitations?$top=5&$skip=3`,
      200,
      {
        check: ({ invitations, _links }: { invitations: object[]; _links: never }) => (
          links({ _links }),
          assert.deepEqual(invitations, [])
        ),
      },
    ),
    access(
      'memberInvitations.getITwinMemberInvitation',
      'GET',
      `/${iTwinId}/members/invitations/${randomUUID()}`,
      404,
      { check: code('InvitationNotFound') },
    ),
    access(
      'memberInvitations.deleteITwinMemberInvitation',
      'DELETE',
      `/${iTwinId}/members/invitations/${randomUUID()}`,
      404,
      { check: code('InvitationNotFound') },
    ),
    access(
      'groupMemberInvitations.deleteITwinGroupMemberInvitation',
      'DELETE',
      `/${iTwinId}/groups/${memberGroupId}/invitations/${randomUUID()}`,
      404,
      { check: code('InvitationNotFound') },
    ),
    access('roles.deleteITwinRole', 'DELETE', `/${iTwinId}/roles/${roleId}`, 204),
    twins('deleteItwin', 'DELETE', `/${iTwinId}`, 204, { as: 'admin' }),
  ];
}

/** Methods without a route here, with an address that each requests. */
const notThere: Record<string, [http: Request['http'], path: string][]> = {
  'getExports, getExport, createExport': [
    ['GET', '/itwins/exports'],
    ['GET', '/itwins/exports/x'],
    ['POST', '/itwins/exports'],
  ],
  'getGlobalRepositories, getGlobalRepository, getGlobalRepositoryResource, getGlobalRepositoryResources, getGlobalResourceGraphics':
    [
      ['GET', '/itwins/repositories'],
      ['GET', '/itwins/repositories/x'],
      ['GET', '/itwins/repositories/x/resources/y/graphics'],
    ],
  'createRepositoryResource, deleteRepositoryResource, getRepositoryResource, getRepositoryResources, getResourceGraphics':
    [
      ['POST', '/itwins/x/repositories/y/resources'],
      ['DELETE', '/itwins/x/repositories/y/resources/z'],
      ['GET', '/itwins/x/repositories/y/resources/z/graphics'],
    ],
  'itwinJobs.createITwinJob, getITwinJob, getITwinJobActions': [
    ['POST', '/accesscontrol/itwins/x/jobs'],
    ['GET', '/accesscontrol/itwins/x/jobs/y'],
    ['GET', '/accesscontrol/itwins/x/jobs/y/actions'],
  ],
  'itwinShares.createITwinShare, getITwinShare, getITwinShares, revokeITwinShare': [
    ['POST', '/accesscontrol/itwins/x/shares'],
    ['GET', '/accesscontrol/itwins/x/shares'],
    ['DELETE', '/accesscontrol/itwins/x/shares/y'],
  ],
};

function code(wanted: string): (body: never) => void {
  return (body: WireError) => assert.equal(body.error.code, wanted);
}

async function setting({ api, server }: Context): Promise<Setting> {
  const { iTwinId, repositoryId } = await make(api);
  const base = `/accesscontrol/itwins/${iTwinId}`;
  const idOf = async (answer: Promise<Answer>, name: string): Promise<string> =>
    ((await answer).body as Record<string, { id: string }>)[name]?.id ?? '';
  const roleId = await idOf(api.post(`${base}/roles`, { displayName: 'role', permissions: ['imodels_read'] }), 'role');
  const groupId = await idOf(api.post(`${base}/groups`, { name: 'zebra' }), 'group');
  const memberGroupId = await idOf(api.post(`${base}/groups`, { name: 'ant' }), 'group');
  await api.post(`${base}/members/groups`, { members: [{ groupId: memberGroupId, roleIds: [roleId] }] });
  await (await server.as('max')).get('/itwins');
  const picture = await sharp({ create: { width: 50, height: 50, channels: 3, background: 'teal' } })
    .png()
    .toBuffer();
  return { iTwinId, repositoryId, roleId, groupId, memberGroupId, picture };
}

onEachDatabase('Requests of clients that the npm registry does not offer', {}, (context) => {
  let requests: Request[];
  before(async () => {
    requests = requestsOf(await setting(context));
  });

  test('get the answers that the clients parse', async () => {
    for (const { client, method, http, path, body, headers, status, check, as } of requests) {
      const api = as === undefined ? context.api : await context.server.as(as);
      const answer = await callAs(`${client}, by its requests: \`${method}\``, () =>
        api.send(http, path, body, headers),
      );
      assert.equal(answer.status, status, `${method}: ${JSON.stringify(answer.body)}`);
      check?.(answer.body as never);
    }
  });

  for (const [methods, addresses] of Object.entries(notThere))
    test(`get 404 with the reason where the feature is missing: ${methods}`, async () => {
      for (const [http, path] of addresses) {
        const answer = await context.api.send(http, path, undefined, json);
        const { error } = answer.body as WireError;
        assert.deepEqual([answer.status, error.code], [404, 'NotFound'], path);
        assert.ok(
          absentAddresses.some(({ message }) => message === error.message),
          error.message,
        );
      }
    });
});
