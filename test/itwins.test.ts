import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test } from 'node:test';
import sharp from 'sharp';
import type { WireError } from './support/api.ts';
import { makeIModel } from './support/clients.ts';
import { people } from './support/server.ts';
import { onEachDatabase } from './support/suite.ts';

const codeOf = (answer: { body: unknown }): string => (answer.body as WireError).error.code;

onEachDatabase('iTwins', {}, (context) => {
  test('are deleted by Organization Administrators alone, with every iModel in them; clones elsewhere stay', async () => {
    const name = `going ${randomUUID()}`;
    const going = await context.server.iTwin('olivia', name);
    const made = await makeIModel(context.olivia, going, { changesets: 2 });
    const { client, authorization } = context.olivia;
    const clone = await client.iModels.clone({ authorization, iModelId: made.id, iModelProperties: { iTwinId: context.iTwinId, name: randomUUID() } });
    assert.equal(codeOf(await context.api.delete(`/itwins/${going}`)), 'InsufficientPermissions');
    const foreign = await context.server.as('foreignAdmin');
    assert.equal(codeOf(await foreign.delete(`/itwins/${going}`)), 'iTwinNotFound');
    const admin = await context.server.as('admin');
    await context.api.put(`/itwins/favorites/${going}`);
    assert.equal((await admin.delete(`/itwins/${going}`)).status, 204);

    for (const api of [admin, context.api]) {
      assert.equal(codeOf(await api.get(`/itwins/${going}`)), 'iTwinNotFound');
      assert.equal(codeOf(await api.get(`/imodels/${made.id}`)), 'iModelNotFound');
      assert.equal(codeOf(await api.get(`/imodels?iTwinId=${going}`)), 'iTwinNotFound');
      assert.ok(!JSON.stringify((await api.get('/itwins?$top=1000')).body).includes(going));
    }
    assert.ok(!JSON.stringify((await context.api.get('/itwins/favorites')).body).includes(going));
    assert.equal(codeOf(await admin.delete(`/itwins/${going}`)), 'iTwinNotFound');
    // Its name is free, and the collector takes the rest.
    await context.server.iTwin('olivia', name);
    await context.server.services.collector.runOnce();
    const { db } = context.server.services.database;
    assert.deepEqual(await db.selectFrom('itwin').select('id').where('id', '=', going).execute(), []);
    assert.deepEqual(await db.selectFrom('imodel').select('id').where('itwin_id', '=', going).execute(), []);
    const { changesets } = (await context.api.get(`/imodels/${clone.id}/changesets`)).body as { changesets: unknown[] };
    assert.equal(changesets.length, 2);
  });

  test('belong to an account, and everyone has one', async () => {
    const account = { id: people.olivia.organizationId, class: 'Account', subClass: 'Account', type: null, number: 'Home', displayName: 'Home' };
    assert.deepEqual((await context.api.get(`/itwins/${context.iTwinId}/account`)).body, { iTwin: account });
    assert.deepEqual((await context.api.get('/itwins/myprimaryaccount')).body, { iTwin: account });
    const eve = await context.server.as('eve');
    assert.equal(codeOf(await eve.get(`/itwins/${context.iTwinId}/account`)), 'iTwinNotFound');
  });

  test('have a picture in two sizes, until it is deleted', async () => {
    const url = `/itwins/${context.iTwinId}/image`;
    assert.equal(codeOf(await context.api.get(url)), 'ImageNotFound');
    const picture = await sharp({ create: { width: 900, height: 600, channels: 3, background: 'teal' } }).jpeg().toBuffer();
    const uploaded = await context.api.put(url, picture, { 'content-type': 'image/jpeg' });
    assert.equal(uploaded.status, 201, JSON.stringify(uploaded.body));
    const { image } = (await context.api.get(url)).body as { image: { smallImageUrl: string; largeImageUrl: string } };
    for (const [href, width] of [
      [image.smallImageUrl, 400],
      [image.largeImageUrl, 800],
    ] as const)
      assert.equal((await sharp(Buffer.from(await (await fetch(href)).arrayBuffer())).metadata()).width, width);
    assert.equal((await context.api.put(url, Buffer.from('no picture'), { 'content-type': 'image/png' })).status, 422);
    assert.equal((await context.api.delete(url)).status, 204);
    assert.equal(codeOf(await context.api.delete(url)), 'ImageNotFound');
  });

  test('keep a list of repositories', async () => {
    const url = `/itwins/${context.iTwinId}/repositories`;
    const repository = { class: 'GeographicInformationSystem', subClass: 'WebMapTileService', uri: 'https://tiles.example.com' };
    const created = (await context.api.post(url, repository)).body as { repository: { id: string } };
    assert.deepEqual({ ...created.repository, id: '' }, { ...repository, id: '' });
    assert.equal(codeOf(await context.api.post(url, repository)), 'iTwinRepositoryExists');
    const wrong = (await context.api.post(url, { class: 'Nothing', subClass: 'None', uri: 'x' })).body as WireError;
    assert.deepEqual(wrong.error.details?.map(({ message }) => message), ['Class value is incorrect.', 'SubClass value is incorrect.']);
    assert.deepEqual((await context.api.get(`${url}?class=GeographicInformationSystem`)).body, { repositories: [created.repository] });
    assert.deepEqual((await context.api.get(`${url}?class=Forms`)).body, { repositories: [] });
    assert.equal((await context.api.get(`${url}?class=Nothing`)).status, 422);
    assert.equal((await context.api.delete(`${url}/${created.repository.id}`)).status, 204);
    assert.equal(codeOf(await context.api.delete(`${url}/${created.repository.id}`)), 'iTwinRepositoryNotFound');
  });
});

onEachDatabase('Groups and owners', {}, (context) => {
  const base = () => `/accesscontrol/itwins/${context.iTwinId}`;

  test('the users of a group have its roles, until it or they go', async () => {
    const max = await context.server.as('max');
    const iModels = () => max.get(`/imodels?iTwinId=${context.iTwinId}`);
    assert.equal((await iModels()).status, 404);
    const roleId = ((await context.api.post(`${base()}/roles`, { displayName: 'readers', permissions: ['imodels_read'] })).body as { role: { id: string } }).role.id;
    const { group } = (await context.api.post(`${base()}/groups`, { name: 'crew', description: 'of the site', members: [people.max.email] })).body as { group: { id: string; members: { userId: string }[] } };
    assert.deepEqual(group.members.map(({ userId }) => userId), [people.max.id]);
    assert.equal((await iModels()).status, 404);
    const added = await context.api.post(`${base()}/members/groups`, { members: [{ groupId: group.id, roleIds: [roleId] }] });
    assert.equal(added.status, 201, JSON.stringify(added.body));
    assert.equal((await iModels()).status, 200);
    assert.ok(JSON.stringify((await max.get('/itwins')).body).includes(context.iTwinId));
    assert.deepEqual((await max.get(`${base()}/permissions`)).body, { permissions: ['imodels_webview', 'imodels_read'] });

    await context.api.patch(`${base()}/groups/${group.id}`, { members: [] });
    assert.equal((await iModels()).status, 404);
    await context.api.patch(`${base()}/groups/${group.id}`, { members: [people.max.id], name: 'the crew' });
    assert.equal((await iModels()).status, 200);
    const writers = ((await context.api.post(`${base()}/roles`, { displayName: 'writers', permissions: ['imodels_write'] })).body as { role: { id: string } }).role.id;
    await context.api.patch(`${base()}/members/groups/${group.id}`, { roleIds: [writers] });
    assert.ok(JSON.stringify((await max.get(`${base()}/permissions`)).body).includes('imodels_write'));
    const { groups } = (await context.api.get(`${base()}/groups`)).body as { groups: { id: string }[] };
    const { group: one } = (await context.api.get(`${base()}/groups/${group.id}`)).body as { group: { name: string; description: string } };
    const { member } = (await context.api.get(`${base()}/members/groups/${group.id}`)).body as { member: { roles: { id: string }[] } };
    assert.deepEqual([groups.map(({ id }) => id), one.name, one.description, member.roles.map(({ id }) => id)], [[group.id], 'the crew', 'of the site', [writers]]);
    const { members } = (await context.api.get(`${base()}/members/groups`)).body as { members: { groupName: string; roles: { id: string }[] }[] };
    assert.deepEqual(members.map(({ groupName, roles }) => [groupName, roles.map(({ id }) => id)]), [['the crew', [writers]]]);
    assert.equal((await context.api.delete(`${base()}/members/groups/${group.id}`)).status, 204);
    assert.equal((await iModels()).status, 404);
    await context.api.post(`${base()}/members/groups`, { members: [{ groupId: group.id, roleIds: [roleId] }] });
    assert.equal((await context.api.delete(`${base()}/groups/${group.id}`)).status, 204);
    assert.equal((await iModels()).status, 404);
    assert.equal(codeOf(await context.api.get(`${base()}/groups/${group.id}`)), 'GroupNotFound');
    const unknown = (await context.api.post(`${base()}/groups`, { name: 'x', members: ['nobody@example.test'] })).body as WireError;
    assert.equal(unknown.error.details?.[0]?.message, "'nobody@example.test' is not a known user.");
  });

  test('owners may do everything, may make others owners, and one always stays', async () => {
    const owners = `${base()}/members/owners`;
    const max = await context.server.as('max');
    assert.equal((await max.get(owners)).status, 404);
    assert.equal((await context.api.post(owners, { email: people.max.email })).status, 201);
    assert.equal((await max.post('/imodels', { iTwinId: context.iTwinId, name: randomUUID() })).status, 201);
    const { members } = (await max.get(owners)).body as { members: { id: string }[] };
    assert.deepEqual(members.map(({ id }) => id).toSorted(), [people.max.id, people.olivia.id].toSorted());
    assert.equal((await max.delete(`${owners}/${people.olivia.id}`)).status, 204);
    assert.equal((await context.api.get(owners)).status, 404);
    assert.equal(codeOf(await max.delete(`${owners}/${people.max.id}`)), 'LastOwner');
    assert.equal(codeOf(await max.delete(`${owners}/${people.olivia.id}`)), 'OwnerNotFound');
    // An administrator of the organization mends it.
    const admin = await context.server.as('admin');
    assert.equal((await admin.post(owners, { email: people.olivia.email })).status, 201);
    assert.equal((await context.api.delete(`${owners}/${people.max.id}`)).status, 204);
    assert.equal((await max.get(owners)).status, 404);
  });
});
