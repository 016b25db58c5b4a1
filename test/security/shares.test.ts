import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { readFileSync, utimesSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { exportJWK, generateKeyPair, SignJWT, type CryptoKey } from 'jose';
import { routes } from '../../apps/server/src/api/routes.ts';
import type { DirectoryData } from '../../apps/server/src/access/directory.ts';
import type { Permission } from '../../apps/server/src/domain.ts';
import { Api, type Answer, type WireError } from '../support/api.ts';
import { makeIModel } from '../support/clients.ts';
import { bootServer, endServer, people, type PersonName, type TestServer } from '../support/server.ts';
import { onEachDatabase } from '../support/suite.ts';
import { until } from '../support/until.ts';

interface Share {
  id: string;
  creatorId: string;
  shareKey: string;
  expiresAt: string;
}

const inDays = (days: number): string => new Date(Date.now() + days * 86_400_000).toISOString();
const codeOf = (answer: Answer): string => (answer.body as WireError).error.code;

async function share(api: Api, iModelId: string, permission = 'imodels_read', expiresAt = inDays(1)): Promise<Share> {
  const answer = await api.post(`/imodels/${iModelId}/shares`, { name: 'for a visitor', expiresAt, permission });
  assert.equal(answer.status, 201, JSON.stringify(answer.body));
  return (answer.body as { share: Share }).share;
}

/** Every operation that a share opens, for its iModel alone. The author of a new route decides whether it belongs here. */
const openToShares = [
  'get-changeset-checkpoint',
  'get-changeset-graphics',
  'get-briefcase-checkpoint',
  'get-create-imodel-operation-details',
  'get-imodel-baseline-file-details',
  'get-imodel-changeset-details',
  'get-imodel-changeset-extended-data-details',
  'get-imodel-changeset-group-details',
  'get-imodel-changeset-groups',
  'get-imodel-changesets',
  'get-imodel-changesets-extended-data',
  'get-imodel-details',
  // Answers with this iModel only.
  'get-imodel-lineage',
  'get-imodel-named-version-details',
  'get-imodel-named-versions',
  'get-imodel-share',
  'get-imodel-shares',
  'get-imodel-thumbnail',
  'get-named-version-checkpoint',
  // Answers with the contents of this iModel.
  'read-viewer',
];

onEachDatabase('The holder of a share', {}, (context) => {
  const holderOf = (key: string) => ({
    get: (path: string) => new Api(context.server.origin).get(path, { authorization: `Basic ${key}` }),
  });

  /** An iModel with a changeset, and Max with permissions of his own on its iTwin. */
  async function fixture(
    rights: readonly Permission[],
  ): Promise<{ iTwinId: string; id: string; max: Api; roleId: string }> {
    const iTwinId = await context.server.iTwin();
    const roleId = await context.server.grant(iTwinId, 'max', rights);
    const { id } = await makeIModel(context.olivia, iTwinId, { changesets: 1 });
    return { iTwinId, id, max: await context.server.as('max'), roleId };
  }

  /** URLs that a share gives access to: a changeset, a checkpoint as a file, and as a container. */
  async function linksOf(key: string, iModelId: string): Promise<string[]> {
    const { changeset } = (await holderOf(key).get(`/imodels/${iModelId}/changesets/1`)).body as {
      changeset: { _links: { download: { href: string } } };
    };
    const { changesets } = (
      await new Api(context.server.origin).get(`/imodels/${iModelId}/changesets`, {
        authorization: `Basic ${key}`,
        prefer: 'return=representation',
      })
    ).body as {
      changesets: { _links: { download: { href: string } } }[];
    };
    const { baselineFile } = (await holderOf(key).get(`/imodels/${iModelId}/baselinefile`)).body as {
      baselineFile: { _links: { download: { href: string } } };
    };
    const { checkpoint } = (await holderOf(key).get(`/imodels/${iModelId}/changesets/0/checkpoint`)).body as {
      checkpoint: {
        directoryAccessInfo: { baseUrl: string; baseDirectory: string; azure: { sasToken: string } };
        _links: { download: { href: string } };
      };
    };
    const { baseUrl, baseDirectory, azure } = checkpoint.directoryAccessInfo;
    return [
      changeset._links.download.href,
      ...changesets.map(({ _links }) => _links.download.href),
      baselineFile._links.download.href,
      checkpoint._links.download.href,
      `${baseUrl}/${baseDirectory}/manifest.bcv?${azure.sasToken}`,
    ];
  }

  const statusOf = async (url: string): Promise<number> => {
    const response = await fetch(url, { redirect: 'manual' });
    await response.arrayBuffer();
    return response.status;
  };
  const statuses = async (urls: readonly string[]): Promise<number[]> => Promise.all(urls.map(statusOf));

  test('has no more permissions than its creator has now', async () => {
    const { iTwinId, id, max, roleId } = await fixture(['imodels_manage']);
    const [reading, looking] = [await share(max, id), await share(max, id, 'imodels_webview')];
    const member = `/accesscontrol/itwins/${iTwinId}/members/users/${people.max.id}`;
    const links = await linksOf(reading.shareKey, id);
    assert.deepEqual(
      await statuses(links),
      links.map(() => 200),
    );

    const viewer = await context.api.post(`/accesscontrol/itwins/${iTwinId}/roles`, {
      displayName: 'viewer',
      permissions: ['imodels_webview'],
    });
    const viewerId = (viewer.body as { role: { id: string } }).role.id;
    assert.equal((await context.api.patch(member, { roleIds: [viewerId] })).status, 200);
    const { changeset } = (await holderOf(reading.shareKey).get(`/imodels/${id}/changesets/1`)).body as {
      changeset: { _links: { download: null } };
    };
    assert.equal(changeset._links.download, null);
    assert.equal(
      codeOf(await holderOf(reading.shareKey).get(`/imodels/${id}/changesets/0/checkpoint`)),
      'InsufficientPermissions',
    );
    assert.equal((await holderOf(looking.shareKey).get(`/imodels/${id}`)).status, 200);
    assert.deepEqual(
      await statuses(links),
      links.map(() => 403),
    );

    // Restored, to prove that only the permission was missing.
    assert.equal((await context.api.patch(member, { roleIds: [roleId] })).status, 200);
    assert.deepEqual(
      await statuses(links),
      links.map(() => 200),
    );

    assert.equal((await context.api.delete(member)).status, 204);
    for (const { shareKey } of [reading, looking])
      for (const rest of ['', '/changesets', '/changesets/1'])
        assert.equal((await holderOf(shareKey).get(`/imodels/${id}${rest}`)).status, 404);
    assert.deepEqual(
      await statuses(links),
      links.map(() => 403),
    );
  });

  test('has none once permissions of the iModel exclude its creator', async () => {
    const { id, max } = await fixture(['imodels_manage']);
    const { shareKey } = await share(max, id);
    const links = await linksOf(shareKey, id);
    assert.equal(
      (
        await context.api.put(`/imodels/${id}/userpermissions`, {
          userPermissions: [{ userId: people.max.id, permissions: [] }],
        })
      ).status,
      200,
    );
    assert.equal((await holderOf(shareKey).get(`/imodels/${id}`)).status, 404);
    assert.deepEqual(
      await statuses(links),
      links.map(() => 403),
    );
  });

  test('loses every link and token when the share is revoked or expires, or its iModel is deleted', async (t) => {
    const { id, max } = await fixture(['imodels_manage']);
    const revoked = await share(max, id);
    const links = await linksOf(revoked.shareKey, id);
    // Direct access would bypass shares: every link leads to this server.
    for (const link of links) assert.equal(new URL(link).origin, context.server.origin);
    assert.deepEqual(
      await statuses(links),
      links.map(() => 200),
    );
    assert.equal((await max.delete(`/imodels/${id}/shares/${revoked.id}`)).status, 204);
    assert.deepEqual(
      await statuses(links),
      links.map(() => 403),
    );

    const expiring = await share(max, id, 'imodels_read', new Date(Date.now() + 600_000).toISOString());
    const ofExpiring = await linksOf(expiring.shareKey, id);
    for (const link of ofExpiring)
      assert.ok(
        Date.parse(new URL(link).searchParams.get('se') ?? '') <= Date.parse(expiring.expiresAt),
        'a link ends with its share at the latest',
      );
    assert.deepEqual(
      await statuses(ofExpiring),
      ofExpiring.map(() => 200),
    );
    const later = Date.now() + 700_000;
    const clock = t.mock.method(Date, 'now', () => later);
    assert.deepEqual(
      await statuses(ofExpiring),
      ofExpiring.map(() => 403),
    );
    clock.mock.restore();

    const last = await share(max, id);
    const ofLast = await linksOf(last.shareKey, id);
    assert.equal((await context.api.delete(`/imodels/${id}`)).status, 204);
    for (const status of await statuses(ofLast)) assert.ok([403, 404].includes(status));
  });

  test('cannot remove the share from a link, or replace it', async () => {
    const { id, max } = await fixture(['imodels_manage']);
    const [gone, other] = [await share(max, id), await share(max, id)];
    const links = await linksOf(gone.shareKey, id);
    await max.delete(`/imodels/${id}/shares/${gone.id}`);
    for (const link of links) {
      for (const forge of [
        (query: URLSearchParams) => query.delete('share'),
        (query: URLSearchParams) => query.set('share', other.id),
        (query: URLSearchParams) => query.append('share', other.id),
      ]) {
        const forged = new URL(link);
        forge(forged.searchParams);
        assert.equal(await statusOf(forged.href), 403, forged.href);
      }
    }
  });

  test('cannot read users, permissions, locks and briefcases, nor any route that is not explicitly open', async () => {
    const { iTwinId, id, max } = await fixture(['imodels_manage']);
    await max.post(`/imodels/${id}/briefcases`, {});
    const named: Record<string, string> = {
      iModelId: id,
      changeset: '1',
      briefcaseId: '2',
      userId: people.max.id,
      namedVersionId: randomUUID(),
      groupId: randomUUID(),
      shareId: randomUUID(),
      roleId: randomUUID(),
      iTwinId,
      title: 'suite',
      version: '1',
      mode: '1',
      operation: 'IModelReadRpcInterface-3.7.0-getConnectionProps',
    };
    for (const permission of ['imodels_webview', 'imodels_read']) {
      const holder = holderOf((await share(max, id, permission)).shareKey);
      for (const route of routes.filter(({ access, method }) => access.on === 'imodel' && method === 'GET')) {
        const answer = await holder.get(
          route.path.replace(/:(\w+)/g, (_, name: string) => named[name] ?? assert.fail(`no sample for :${name}`)),
        );
        const open = openToShares.includes(route.operationId);
        if (!open)
          assert.deepEqual([answer.status, codeOf(answer)], [403, 'InsufficientPermissions'], route.operationId);
        assert.doesNotMatch(JSON.stringify(answer.body), /@example\.test/, route.operationId);
      }
      for (const closed of [
        'users',
        `users/${people.olivia.id}`,
        'permissions',
        'userpermissions',
        'rolepermissions',
        'locks',
        'locks/released-locks',
        'briefcases',
        'briefcases/2',
      ])
        assert.equal((await holder.get(`/imodels/${id}/${closed}`)).status, 403, closed);
    }
  });

  test('is visible to administrators of the iTwin, who can revoke any share; other members neither see nor revoke it', async () => {
    const { iTwinId, id, max } = await fixture(['imodels_manage']);
    await context.server.grant(iTwinId, 'newcomer', ['imodels_manage']);
    const created = await share(max, id);
    for (const who of ['olivia', 'admin'] as PersonName[]) {
      const administrator = await context.server.as(who);
      const { shares } = (await administrator.get(`/imodels/${id}/shares`)).body as { shares: Share[] };
      assert.deepEqual(
        shares.map(({ id: each, creatorId }) => [each, creatorId]),
        [[created.id, people.max.id]],
        who,
      );
      assert.ok(!JSON.stringify(shares).includes(created.shareKey));
      assert.equal((await administrator.get(`/imodels/${id}/shares/${created.id}`)).status, 200);
      assert.equal(
        codeOf(await administrator.patch(`/imodels/${id}/shares/${created.id}`, { expiresAt: inDays(2) })),
        'InsufficientPermissions',
      );
    }
    const member = await context.server.as('newcomer');
    assert.deepEqual(((await member.get(`/imodels/${id}/shares`)).body as { shares: [] }).shares, []);
    for (const method of ['GET', 'DELETE'])
      assert.equal(codeOf(await member.send(method, `/imodels/${id}/shares/${created.id}`)), 'ShareNotFound');

    const administrator = await context.server.as('admin');
    // Only for this iModel: the share is valid for no other.
    const other = await makeIModel(context.olivia, iTwinId);
    assert.equal(codeOf(await administrator.delete(`/imodels/${other.id}/shares/${created.id}`)), 'ShareNotFound');
    assert.equal((await administrator.delete(`/imodels/${id}/shares/${created.id}`)).status, 204);
    assert.equal((await holderOf(created.shareKey).get(`/imodels/${id}`)).status, 401);
    const entries = await context.server.services.database.db
      .selectFrom('audit')
      .select('actor_id')
      .where('imodel_id', '=', id)
      .where('action', '=', 'share.revoke')
      .execute();
    assert.deepEqual(
      entries.map(({ actor_id }) => actor_id),
      [people.admin.id],
    );
  });

  test('loses the share when its creator may no longer create any', async () => {
    const { iTwinId, id, max } = await fixture(['imodels_manage']);
    const created = await share(max, id);
    const reader = await context.api.post(`/accesscontrol/itwins/${iTwinId}/roles`, {
      displayName: 'reader',
      permissions: ['imodels_read'],
    });
    await context.api.patch(`/accesscontrol/itwins/${iTwinId}/members/users/${people.max.id}`, {
      roleIds: [(reader.body as { role: { id: string } }).role.id],
    });
    assert.equal(
      codeOf(await max.patch(`/imodels/${id}/shares/${created.id}`, { expiresAt: inDays(150) })),
      'InsufficientPermissions',
    );
    assert.equal((await max.patch(`/imodels/${id}/shares/${created.id}`, { expiresAt: inDays(0.5) })).status, 200);
  });

  test('loses the share when its creator is no longer an administrator in the users file', async () => {
    const { id } = await fixture(['imodels_read']);
    const { shareKey } = await share(await context.server.as('admin'), id);
    const links = await linksOf(shareKey, id);
    assert.deepEqual(
      await statuses(links),
      links.map(() => 200),
    );
    const file = path.join(context.server.installation.dataDir, 'users.json');
    const before = readFileSync(file, 'utf8');
    const write = (text: string): void => {
      writeFileSync(file, text);
      // A modification time different from the one before, whatever the resolution of the file system is.
      utimesSync(file, new Date(), new Date(Date.now() + Math.random() * 60_000));
    };
    const directory = JSON.parse(before) as DirectoryData;
    write(
      JSON.stringify({
        ...directory,
        users: directory.users.map((user) =>
          user.id === people.admin.id ? { ...user, organizationAdministrator: false } : user,
        ),
      }),
    );
    await until('the share to be worth nothing', async () =>
      (await holderOf(shareKey).get(`/imodels/${id}`)).status === 404 ? true : undefined,
    );
    assert.deepEqual(
      await statuses(links),
      links.map(() => 403),
    );
    write(JSON.stringify({ ...directory, users: directory.users.filter((user) => user.id !== people.admin.id) }));
    await until('the share of nobody', async () =>
      (await holderOf(shareKey).get(`/imodels/${id}`)).status === 401 ? true : undefined,
    );
    write(before);
    await until('the share as before', async () =>
      (await holderOf(shareKey).get(`/imodels/${id}`)).status === 200 ? true : undefined,
    );
  });
});

describe('An administrator by a claim of an external issuer', () => {
  let issuer: Server;
  let server: TestServer;
  let key: CryptoKey;
  before(async () => {
    const keys = await generateKeyPair('ES256', { extractable: true });
    key = keys.privateKey;
    const jwk = { ...(await exportJWK(keys.publicKey)), kid: 'one' };
    issuer = createServer((_request, response) =>
      response.setHeader('content-type', 'application/json').end(JSON.stringify({ keys: [jwk] })),
    );
    await new Promise<void>((resolve) => issuer.listen(0, '127.0.0.1', resolve));
    const url = `http://127.0.0.1:${(issuer.address() as AddressInfo).port}`;
    server = await bootServer('sqlite', {
      issuers: [
        {
          issuer: url,
          jwksUri: `${url}/keys`,
          audience: 'here',
          algorithms: ['ES256'],
          organizationClaim: 'org',
          administratorClaim: 'org_admin',
        },
      ],
    });
  });
  after(async () => {
    await endServer(server);
    issuer.closeAllConnections();
    issuer.close();
  });

  test('cannot create a share that depends on the claim, which cannot be revoked here; an owner can', async () => {
    const url = `http://127.0.0.1:${(issuer.address() as AddressInfo).port}`;
    const token = await new SignJWT({
      scope: 'itwin-platform',
      client_id: 'spa',
      org: people.olivia.organizationId,
      org_admin: true,
    })
      .setProtectedHeader({ alg: 'ES256', kid: 'one' })
      .setIssuer(url)
      .setAudience('here')
      .setSubject(randomUUID())
      .setExpirationTime('1h')
      .sign(key);
    const administrator = new Api(server.origin, token);
    const create = async (iTwinId: string): Promise<string> =>
      ((await administrator.post('/imodels', { iTwinId, name: 'shared' })).body as { iModel: { id: string } }).iModel
        .id;
    const ofOlivia = await create(await server.iTwin());
    const refused = await administrator.post(`/imodels/${ofOlivia}/shares`, {
      name: 'x',
      expiresAt: inDays(1),
      permission: 'imodels_webview',
    });
    assert.deepEqual([refused.status, codeOf(refused)], [403, 'InsufficientPermissions']);
    const own = (await administrator.post('/itwins', { displayName: 'own', class: 'Endeavor', subClass: 'Project' }))
      .body as { iTwin: { id: string } };
    const { shareKey } = await share(administrator, await create(own.iTwin.id));
    assert.equal((await new Api(server.origin).get('/itwins', { authorization: `Basic ${shareKey}` })).status, 200);
  });
});
