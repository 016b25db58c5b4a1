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
  test('are deleted only by Organization Administrators, with every iModel in them; clones elsewhere stay', async () => {
    const name = `going ${randomUUID()}`;
    const going = await context.server.iTwin('olivia', name);
    const made = await makeIModel(context.olivia, going, { changesets: 2 });
    const { client, authorization } = context.olivia;
    const clone = await client.iModels.clone({
      authorization,
      iModelId: made.id,
      iModelProperties: { iTwinId: context.iTwinId, name: randomUUID() },
    });
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
    // Its name is free, and the collector removes its data.
    await context.server.iTwin('olivia', name);
    await context.server.services.collector.runOnce();
    const { db } = context.server.services.database;
    assert.deepEqual(await db.selectFrom('itwin').select('id').where('id', '=', going).execute(), []);
    assert.deepEqual(await db.selectFrom('imodel').select('id').where('itwin_id', '=', going).execute(), []);
    const { changesets } = (await context.api.get(`/imodels/${clone.id}/changesets`)).body as { changesets: unknown[] };
    assert.equal(changesets.length, 2);
  });

  test('belong to an account, and every user has one', async () => {
    const account = {
      id: people.olivia.organizationId,
      class: 'Account',
      subClass: 'Account',
      type: null,
      number: 'Home',
      displayName: 'Home',
    };
    assert.deepEqual((await context.api.get(`/itwins/${context.iTwinId}/account`)).body, { iTwin: account });
    assert.deepEqual((await context.api.get('/itwins/myprimaryaccount')).body, { iTwin: account });
    const eve = await context.server.as('eve');
    assert.equal(codeOf(await eve.get(`/itwins/${context.iTwinId}/account`)), 'iTwinNotFound');
  });

  test('have an image in two sizes, until it is deleted', async () => {
    const url = `/itwins/${context.iTwinId}/image`;
    assert.equal(codeOf(await context.api.get(url)), 'ImageNotFound');
    const picture = await sharp({ create: { width: 900, height: 600, channels: 3, background: 'teal' } })
      .jpeg()
      .toBuffer();
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

  test('have a list of repositories', async () => {
    const url = `/itwins/${context.iTwinId}/repositories`;
    const repository = {
      class: 'GeographicInformationSystem',
      subClass: 'WebMapTileService',
      uri: 'https://tiles.example.com',
    };
    const created = (await context.api.post(url, repository)).body as { repository: { id: string } };
    assert.deepEqual(
      { ...created.repository, id: '' },
      { ...repository, id: '', displayName: repository.uri, capabilities: {} },
    );
    assert.equal(codeOf(await context.api.post(url, repository)), 'iTwinRepositoryExists');
    const wrong = (await context.api.post(url, { class: 'Nothing', subClass: 'None', uri: 'x' })).body as WireError;
    assert.deepEqual(
      wrong.error.details?.map(({ message }) => message),
      ['Class value is incorrect.', 'SubClass value is incorrect.'],
    );
    assert.deepEqual((await context.api.get(`${url}?class=GeographicInformationSystem`)).body, {
      repositories: [created.repository],
    });
    assert.deepEqual((await context.api.get(`${url}?class=Forms`)).body, { repositories: [] });
    assert.equal((await context.api.get(`${url}?class=Nothing`)).status, 422);
    assert.equal((await context.api.delete(`${url}/${created.repository.id}`)).status, 204);
    assert.equal(codeOf(await context.api.delete(`${url}/${created.repository.id}`)), 'iTwinRepositoryNotFound');
  });
});

/** The details of an error by target. */
const detailsOf = (answer: { body: unknown }): Record<string, [code: string, message: string]> =>
  Object.fromEntries(
    ((answer.body as WireError).error.details ?? []).map(({ target = '', code, message }) => [target, [code, message]]),
  );

onEachDatabase('Validation of iTwins', {}, (context) => {
  const create = (body: object, who: 'olivia' | 'admin' | 'eve' | 'consultant' = 'olivia') =>
    context.server
      .as(who)
      .then((api) => api.post('/itwins', { displayName: randomUUID(), class: 'Thing', subClass: 'Asset', ...body }));
  const missing = ['MissingRequiredProperty', 'A required property is missing or empty.'];

  test('reports all missing, null and empty required properties in one answer', async () => {
    assert.deepEqual(detailsOf(await context.api.post('/itwins', {})), {
      displayName: missing,
      class: missing,
      subClass: missing,
    });
    assert.deepEqual(detailsOf(await context.api.post('/itwins', { displayName: '  ', class: null, subClass: '' })), {
      displayName: missing,
      class: missing,
      subClass: missing,
    });
    const repositories = `/itwins/${context.iTwinId}/repositories`;
    assert.deepEqual(detailsOf(await context.api.post(repositories, {})), { class: missing, uri: missing });
    assert.deepEqual(detailsOf(await context.api.post(repositories, { class: 'Forms', uri: '' })), { uri: missing });
  });

  test('reports all unknown values in one answer', async () => {
    const long = 'x'.repeat(256);
    const answer = await create({
      displayName: long,
      number: long,
      type: long,
      geographicLocation: long,
      class: 'Sky',
      subClass: 'Cloud',
      status: 'Asleep',
    });
    assert.deepEqual(
      [answer.status, codeOf(answer), (answer.body as WireError).error.message],
      [422, 'InvalidiTwinsRequest', 'Cannot create iTwin.'],
    );
    assert.deepEqual(detailsOf(answer), {
      status: ['InvalidValue', 'Status value is incorrect. Valid values are Active, Inactive and Trial.'],
      class: ['InvalidValue', 'Class value is incorrect.'],
      subClass: ['InvalidValue', 'SubClass value is incorrect.'],
      geographicLocation: ['InvalidValue', 'GeographicLocation cannot be more than 255 characters.'],
      displayName: ['InvalidValue', 'DisplayName cannot be more than 255 characters.'],
      number: ['InvalidValue', 'Number cannot be more than 255 characters.'],
      type: ['InvalidValue', 'Type cannot be more than 100 characters.'],
    });
    const changed = await context.api.patch(`/itwins/${context.iTwinId}`, {
      id: 'x',
      class: 'Thing',
      subClass: 'Asset',
      createdDateTime: 'x',
      dataCenterLocation: 'x',
      parentId: 'x',
      status: 'Asleep',
      number: long,
    });
    assert.deepEqual(detailsOf(changed), {
      id: ['ReadOnlyProperty', 'Id is read only and cannot be modified.'],
      class: ['ReadOnlyProperty', 'Class is read only and cannot be modified.'],
      subClass: ['ReadOnlyProperty', 'SubClass is read only and cannot be modified.'],
      createdDateTime: ['ReadOnlyProperty', 'CreatedDateTime is read only and should not be set.'],
      dataCenterLocation: ['ReadOnlyProperty', 'DataCenterLocation is read only and should not be set.'],
      parentId: ['ReadOnlyProperty', 'ParentId is read only and cannot be modified.'],
      status: ['InvalidValue', 'Status value is incorrect. Valid values are Active, Inactive and Trial.'],
      number: ['InvalidValue', 'Number cannot be more than 255 characters.'],
    });
  });

  test('requires that class and subclass match, and refuses to create accounts', async () => {
    for (const [kind, subClass] of [
      ['Thing', 'Project'],
      ['Endeavor', 'Asset'],
      ['Endeavor', 'Portfolio'],
    ])
      assert.deepEqual(detailsOf(await create({ class: kind, subClass })), {
        subClass: ['InvalidValue', 'SubClass value is incorrect.'],
      });
    for (const body of [{ class: 'Account', subClass: 'Account' }, { subClass: 'Account' }]) {
      const ordinary = await create(body);
      assert.deepEqual([ordinary.status, codeOf(ordinary)], [403, 'InsufficientPermissions']);
      assert.equal((await create(body, 'admin')).status, 422);
    }
  });

  test('requires a parent in the caller’s organization, which becomes the organization of the iTwin', async () => {
    const iTwinOf = (answer: { body: unknown }): { parentId: string; iTwinAccountId: string } =>
      (answer.body as { iTwin: { parentId: string; iTwinAccountId: string } }).iTwin;
    const home = people.olivia.organizationId;
    for (const parentId of [context.iTwinId, home])
      assert.deepEqual(
        [iTwinOf(await create({ parentId })).parentId, iTwinOf(await create({ parentId })).iTwinAccountId],
        [parentId, home],
      );
    const theirs = await context.server.iTwin('eve');
    for (const parentId of [randomUUID(), theirs, people.eve.organizationId, 'x'])
      assert.deepEqual(
        detailsOf(await create({ parentId })),
        { parentId: ['InvalidValue', 'ParentId value is incorrect.'] },
        parentId,
      );
    // Seeing an iTwin of another organization is not enough to create iTwins below it.
    await context.server.grant(theirs, 'olivia', ['imodels_read'], 'eve');
    const below = await create({ parentId: theirs });
    assert.deepEqual([below.status, codeOf(below)], [403, 'InsufficientPermissions']);
    for (const parentId of [theirs, people.eve.organizationId])
      assert.equal(iTwinOf(await create({ parentId }, 'consultant')).iTwinAccountId, people.eve.organizationId);
    assert.equal(iTwinOf(await create({ parentId: home }, 'consultant')).iTwinAccountId, home);
    const children = ((await context.api.get(`/itwins?parentId=${context.iTwinId}`)).body as { iTwins: object[] })
      .iTwins;
    assert.equal(children.length, 2);
  });

  test('reports a taken name and a taken number together, the number first', async () => {
    const names = { displayName: randomUUID(), number: randomUUID() };
    await create(names);
    const targets = async (body: object): Promise<unknown> =>
      ((await create(body)).body as WireError).error.details?.map(({ target }) => target);
    assert.deepEqual(
      [
        await targets(names),
        await targets({ displayName: names.displayName }),
        await targets({ number: names.number }),
      ],
      [['number', 'displayName'], ['displayName'], ['number']],
    );
  });

  test('treats list parameters alike for iTwins, favorites and recents', async () => {
    for (const path of ['/itwins', '/itwins/favorites', '/itwins/recents']) {
      const refused = async (query: string, headers: Record<string, string> = {}) => {
        const answer = await context.api.get(`${path}?${query}`, headers);
        assert.deepEqual(
          [answer.status, (answer.body as WireError).error.message],
          [422, 'Cannot query iTwins.'],
          `${path}?${query}`,
        );
        return detailsOf(answer);
      };
      assert.deepEqual(await refused('$top=1001&$skip=-1'), {
        $top: ['InvalidValue', 'The $top query option must be a positive integer that does not exceed 1000.'],
        $skip: ['InvalidValue', 'The $skip query option must be a non-negative integer.'],
      });
      assert.deepEqual(await refused('subClass=Nothing&status=Active&includeInactive=true'), {
        subClass: ['InvalidValue', 'A valid iTwin SubClass was not specified in the query.'],
        includeInactive: [
          'InvalidParameter',
          'The includeInactive parameter should not be used at the same time as the status parameter.',
        ],
      });
      assert.deepEqual(await refused('status=Asleep'), {
        status: ['InvalidValue', 'Status value is incorrect. Valid values are Active, Inactive and Trial.'],
      });
      assert.deepEqual(await refused('$search=a&number=1'), {
        $search: ['InvalidParameter', '$search cannot be used in conjuction with displayName or number.'],
      });
      assert.deepEqual(await refused('$select=id,nothing'), {
        $select: ['InvalidValue', "'nothing' is not a property of an iTwin."],
      });
      assert.deepEqual(await refused('$expand=x'), {
        $expand: ['InvalidParameter', "'$expand' is not a query option of this operation."],
      });
      assert.ok('x-itwin-query-scope' in (await refused('', { 'x-itwin-query-scope': 'everybody' })));
    }
  });

  test('applies $filter, $orderby and iTwinAccountId, and refuses what it cannot parse', async () => {
    const tag = randomUUID();
    for (const [name, more] of [
      ['a', { status: 'Trial', type: 'Pump' }],
      ['B', { status: 'Inactive' }],
      ['c', { type: "O'Neil" }],
    ] as const)
      await create({ displayName: `${tag} ${name}`, ...more });
    const names = async (query: string, path = '/itwins'): Promise<string[]> => {
      const { iTwins } = (await context.api.get(`${path}?${query}`)).body as { iTwins: { displayName: string }[] };
      return iTwins
        .map(({ displayName }) => displayName)
        .filter((name) => name.startsWith(tag))
        .map((name) => name.slice(-1));
    };
    const filter = (text: string): Promise<string[]> =>
      names(`$top=1000&$orderby=displayName&$filter=${encodeURIComponent(text)}`);
    assert.deepEqual(await names(`$search=${tag}&$orderby=displayName desc&includeInactive=true`), ['c', 'B', 'a']);
    assert.deepEqual(await names(`$search=${tag}&$ORDERBY=displayName`), ['a', 'c']);
    for (const [text, wanted] of [
      ["status eq 'Trial'", ['a']],
      ["status eq 'Trial' or status eq 'Inactive'", ['a', 'B']],
      ["status ne 'Trial'", ['B', 'c']],
      ["not (status eq 'Trial') and status ne 'Inactive'", ['c']],
      ["status in ('Trial', 'Active')", ['a', 'c']],
      ["type eq 'O''Neil'", ['c']],
      ["type ne 'Pump'", ['c']],
      ['type ne null', ['a', 'c']],
      ["type eq null and status eq 'Inactive'", ['B']],
      [`startswith(displayName, '${tag}') and endswith(displayName, ' c')`, ['c']],
      ["contains(type, 'um')", ['a']],
      [`iTwinAccountId eq '${people.olivia.organizationId}' and type eq 'Pump'`, ['a']],
      ["createdDateTime gt 2000-01-01T00:00:00Z and type eq 'Pump'", ['a']],
      ['createdDateTime lt 2000-01-01T00:00:00Z', []],
    ] as const)
      assert.deepEqual(await filter(text), wanted, text);
    for (const text of [
      "status eq 'Trial",
      'status',
      "status is 'Trial'",
      "colour eq 'red'",
      'status eq 5',
      "createdDateTime gt 'soon'",
      '(((',
      "status eq 'a' status",
      `${'('.repeat(30)}status eq 'a'${')'.repeat(30)}`,
      Array.from({ length: 60 }, () => "type eq 'a'").join(' or '),
      'type gt null',
      "'; drop table itwin; --",
    ]) {
      const answer = await context.api.get(`/itwins?$filter=${encodeURIComponent(text)}`);
      assert.deepEqual([answer.status, Object.keys(detailsOf(answer))], [422, ['$filter']], text);
    }
    assert.equal((await names(`$search=${tag}&iTwinAccountId=${people.olivia.organizationId}`)).length, 2);
    assert.deepEqual(await names(`$search=${tag}&iTwinAccountId=${people.eve.organizationId}`), []);
    const [selected] = (
      (await context.api.get(`/itwins?$search=${tag}&$select=displayName,status&$top=1`)).body as { iTwins: object[] }
    ).iTwins;
    assert.deepEqual(selected, { displayName: `${tag} a`, status: 'Trial' });
  });

  test('the query scope distinguishes iTwins of a member from those of an administrator', async () => {
    const [own, others] = [await context.server.iTwin('admin'), await context.server.iTwin('olivia')];
    const admin = await context.server.as('admin');
    const seen = async (scope?: string): Promise<boolean[]> => {
      const { iTwins } = (
        await admin.get('/itwins?$top=1000', scope === undefined ? {} : { 'x-itwin-query-scope': scope })
      ).body as { iTwins: { id: string }[] };
      return [own, others].map((id) => iTwins.some((iTwin) => iTwin.id === id));
    };
    assert.deepEqual(
      [await seen('memberOfItwin'), await seen('all'), await seen('OrganizationAdmin'), await seen()],
      [
        [true, false],
        [true, true],
        [true, true],
        [true, true],
      ],
    );
  });

  test('limits an image to five times as long as high, and every representation of the iTwin links to it', async () => {
    const iTwinId = await context.server.iTwin();
    const upload = async (width: number, height: number) =>
      context.api.put(
        `/itwins/${iTwinId}/image`,
        await sharp({ create: { width, height, channels: 3, background: 'teal' } })
          .png()
          .toBuffer(),
        { 'content-type': 'image/png' },
      );
    for (const [width, height] of [
      [501, 100],
      [100, 501],
    ] as const)
      assert.deepEqual(detailsOf(await upload(width, height)), {
        image: [
          'InvalidValue',
          'The width or height dimensions of the image cannot be greater than 5 times the size of each other.',
        ],
      });
    const tooLarge = await context.api.put(`/itwins/${iTwinId}/image`, Buffer.alloc(5_242_881), {
      'content-type': 'image/png',
    });
    assert.deepEqual(
      [tooLarge.status, (tooLarge.body as WireError).error.message],
      [413, 'Provided file is greater than the maximum allowed file size of 5MB.'],
    );
    // Empty and unsupported images are client errors alike.
    for (const bytes of [Buffer.alloc(0), Buffer.from('no picture')])
      assert.equal(
        (await context.api.put(`/itwins/${iTwinId}/image`, bytes, { 'content-type': 'image/png' })).status,
        422,
      );
    assert.equal((await upload(500, 100)).status, 201);
    const { image } = (await context.api.get(`/itwins/${iTwinId}/image`)).body as { image: { smallImageName: string } };
    await context.api.post(`/itwins/favorites/${iTwinId}`);
    const single = (
      (await context.api.get(`/itwins/${iTwinId}`)).body as { iTwin: { imageName: string; image: string } }
    ).iTwin;
    const [listed] = (
      (
        await context.api.get(`/itwins/favorites?$filter=${encodeURIComponent(`id eq '${iTwinId}'`)}`, {
          prefer: 'return=representation',
        })
      ).body as { iTwins: { imageName: string; image: string }[] }
    ).iTwins;
    for (const iTwin of [single, listed]) {
      assert.equal(iTwin?.imageName, image.smallImageName);
      assert.equal((await fetch(iTwin?.image ?? '')).status, 200);
    }
  });

  test('repositories are read and changed individually; class and subclass are immutable and must match', async () => {
    const url = `/itwins/${await context.server.iTwin()}/repositories`;
    const given = {
      class: 'GeographicInformationSystem',
      subClass: 'UrlTemplate',
      uri: 'https://tiles.example/{z}',
      displayName: 'Tiles',
      options: { minimumLevel: 1 },
      authentication: { type: 'Basic', username: 'u', password: 'p' },
    };
    const { repository } = (await context.api.post(url, given)).body as { repository: { id: string } };
    const one = `${url}/${repository.id}`;
    assert.deepEqual((await context.api.get(one)).body, {
      repository: { ...given, id: repository.id, capabilities: {} },
    });
    const changed = await context.api.patch(one, {
      displayName: 'Other',
      class: given.class,
      subClass: given.subClass,
      options: null,
      authentication: null,
    });
    assert.deepEqual(changed.body, {
      repository: {
        id: repository.id,
        class: given.class,
        subClass: given.subClass,
        uri: given.uri,
        displayName: 'Other',
        capabilities: {},
      },
    });
    assert.deepEqual(detailsOf(await context.api.patch(one, { class: 'Forms', subClass: null })), {
      class: ['ReadOnlyProperty', 'Class is read only and cannot be modified.'],
      subClass: ['ReadOnlyProperty', 'SubClass is read only and cannot be modified.'],
    });
    await context.api.post(url, { class: 'GeographicInformationSystem', uri: 'https://taken.example' });
    assert.equal(codeOf(await context.api.patch(one, { uri: 'https://taken.example' })), 'iTwinRepositoryExists');
    assert.equal((await context.api.patch(one, { uri: '' })).status, 422);
    assert.equal((await context.api.post(url, { ...given, class: 'Storage' })).status, 422);
    assert.equal((await context.api.get(`${url}?class=Storage&subClass=UrlTemplate`)).status, 422);
    for (const bad of [
      { authentication: { type: 'Header' } },
      { authentication: { type: 'None' } },
      { options: [] },
      { options: { a: 'x'.repeat(10_001) } },
    ])
      assert.equal((await context.api.patch(one, bad)).status, 422, JSON.stringify(bad).slice(0, 100));
    for (const path of [
      `${url}/${randomUUID()}`,
      `/itwins/${randomUUID()}/repositories/${repository.id}`,
      `${url}/x`,
    ]) {
      assert.equal(codeOf(await context.api.get(path)), 'iTwinRepositoryNotFound', path);
      assert.equal(codeOf(await context.api.patch(path, { displayName: 'x' })), 'iTwinRepositoryNotFound', path);
    }
    const audited = await context.server.services.database.db
      .selectFrom('audit')
      .select('detail')
      .where('action', 'in', ['repository.create', 'repository.update'])
      .execute();
    assert.ok(
      audited.length > 0 &&
        !JSON.stringify(audited).includes('"password"') &&
        !JSON.stringify(audited).includes('\\"password'),
    );
  });
});

onEachDatabase('Lists of access control', {}, (context) => {
  test('end for clients that page by links and by counting', async () => {
    const iTwinId = await context.server.iTwin();
    const base = `/accesscontrol/itwins/${iTwinId}`;
    const { role } = (await context.api.post(`${base}/roles`, { displayName: 'r0' })).body as { role: { id: string } };
    for (const name of ['r1', 'r2']) await context.api.post(`${base}/roles`, { displayName: name });
    for (const name of ['g0', 'g1', 'g2']) {
      const { group } = (await context.api.post(`${base}/groups`, { name, members: [people.max.id] })).body as {
        group: { id: string };
      };
      await context.api.post(`${base}/members/groups`, { members: [{ groupId: group.id, roleIds: [role.id] }] });
    }
    const three = ['max', 'eve', 'newcomer'] as const;
    await context.api.post(`${base}/members/users`, {
      members: three.map((who) => ({ userId: people[who].id, roleIds: [role.id] })),
    });
    for (const who of ['max', 'eve'] as const)
      await context.api.post(`${base}/members/owners`, { email: people[who].email });
    for (const [path, key] of [
      ['roles', 'roles'],
      ['groups', 'groups'],
      ['members/users', 'members'],
      ['members/groups', 'members'],
      ['members/owners', 'members'],
    ] as const) {
      const page = async (url: string) => {
        const { body } = await context.api.get(url);
        const { _links, [key]: items } = body as Record<string, { id: string }[]> & {
          _links: { next: { href: string } | null; prev: { href: string } | null };
        };
        return { _links, ids: (items ?? []).map(({ id }) => id) };
      };
      const all = await page(`${base}/${path}`);
      assert.deepEqual([all.ids.length, all._links.next], [3, null], path);
      const counted: string[] = [];
      for (let skip = 0; skip < 10; skip += 2)
        counted.push(...(await page(`${base}/${path}?$top=2&$skip=${skip}`)).ids);
      assert.deepEqual(counted, all.ids, path);
      const linked: string[] = [];
      for (let url: string | undefined = `${base}/${path}?$top=1`; url !== undefined;) {
        const { ids, _links } = await page(url);
        linked.push(...ids);
        url = _links.next?.href;
        assert.ok(linked.length <= 3, path);
      }
      assert.deepEqual(linked, all.ids, path);
      assert.equal((await context.api.get(`${base}/${path}?$top=0`)).status, 422);
      assert.equal((await context.api.get(`${base}/${path}?$filter=x`)).status, 422);
    }
  });

  test('unknown entries have the error codes that clients compare', async () => {
    const base = `/accesscontrol/itwins/${context.iTwinId}`;
    const nobody = randomUUID();
    for (const [path, code] of [
      [`/accesscontrol/itwins/${nobody}/permissions`, 'ItwinNotFound'],
      [`/accesscontrol/itwins/${nobody}/members/invitations/${nobody}`, 'ItwinNotFound'],
      [`${base}/members/users/${nobody}`, 'TeamMemberNotFound'],
      [`${base}/members/groups/${nobody}`, 'TeamMemberNotFound'],
      [`${base}/groups/${nobody}`, 'GroupNotFound'],
      [`${base}/groups/${nobody}/invitations`, 'GroupNotFound'],
      [`${base}/roles/${nobody}`, 'RoleNotFound'],
      [`${base}/members/invitations/${nobody}`, 'InvitationNotFound'],
    ] as const) {
      const answer = await context.api.get(path);
      assert.deepEqual([answer.status, codeOf(answer)], [404, code], path);
    }
    const { group } = (await context.api.post(`${base}/groups`, { name: 'named' })).body as { group: { id: string } };
    const other = (await context.api.post(`${base}/groups`, { name: 'other' })).body as { group: { id: string } };
    for (const [answer, status, code] of [
      [await context.api.patch(`${base}/groups/${group.id}`, { members: ['no-email'] }), 404, 'TeamMemberNotFound'],
      [await context.api.patch(`${base}/groups/${nobody}`, { name: 'x' }), 404, 'GroupNotFound'],
      [
        await context.api.patch(`${base}/groups/${group.id}`, { imsGroups: ['crew'] }),
        422,
        'InvalidiTwinsGroupRequest',
      ],
      [
        await context.api.patch(`${base}/groups/${other.group.id}`, { name: 'named' }),
        422,
        'InvalidiTwinsGroupRequest',
      ],
      [await context.api.post(`${base}/groups`, { name: '' }), 422, 'InvalidiTwinsGroupRequest'],
      [await context.api.post(`${base}/groups`, { name: 'named' }), 422, 'InvalidiTwinsGroupRequest'],
      [
        await context.api.post(`${base}/members/users`, {
          members: [
            { userId: people.max.id, roleIds: Array.from({ length: 26 }, () => nobody) },
            { userId: people.eve.id, roleIds: Array.from({ length: 26 }, () => nobody) },
          ],
        }),
        422,
        'InvalidAccessControlRequest',
      ],
    ] as const)
      assert.deepEqual([answer.status, codeOf(answer)], [status, code]);
    assert.equal(
      (await context.api.patch(`${base}/groups/${group.id}`, { name: 'named', description: 'the same name' })).status,
      200,
    );
  });

  test('of two groups that are created concurrently with one name only one gets it', async () => {
    const answers = await Promise.all(
      Array.from({ length: 4 }, () =>
        context.api.post(`/accesscontrol/itwins/${context.iTwinId}/groups`, { name: 'at once' }),
      ),
    );
    assert.deepEqual(answers.map(({ status }) => status).toSorted(), [201, 422, 422, 422]);
  });
});

onEachDatabase('Groups and owners', {}, (context) => {
  const base = () => `/accesscontrol/itwins/${context.iTwinId}`;

  test('users of a group have its roles until the group or the membership is deleted', async () => {
    const max = await context.server.as('max');
    const iModels = () => max.get(`/imodels?iTwinId=${context.iTwinId}`);
    assert.equal((await iModels()).status, 404);
    const roleId = (
      (await context.api.post(`${base()}/roles`, { displayName: 'readers', permissions: ['imodels_read'] })).body as {
        role: { id: string };
      }
    ).role.id;
    const { group } = (
      await context.api.post(`${base()}/groups`, {
        name: 'crew',
        description: 'of the site',
        members: [people.max.email],
      })
    ).body as { group: { id: string; members: { userId: string }[] } };
    assert.deepEqual(
      group.members.map(({ userId }) => userId),
      [people.max.id],
    );
    assert.equal((await iModels()).status, 404);
    const added = await context.api.post(`${base()}/members/groups`, {
      members: [{ groupId: group.id, roleIds: [roleId] }],
    });
    assert.equal(added.status, 201, JSON.stringify(added.body));
    assert.equal((await iModels()).status, 200);
    assert.ok(JSON.stringify((await max.get('/itwins')).body).includes(context.iTwinId));
    assert.deepEqual((await max.get(`${base()}/permissions`)).body, {
      permissions: ['imodels_webview', 'imodels_read'],
    });

    await context.api.patch(`${base()}/groups/${group.id}`, { members: [] });
    assert.equal((await iModels()).status, 404);
    await context.api.patch(`${base()}/groups/${group.id}`, { members: [people.max.id], name: 'the crew' });
    assert.equal((await iModels()).status, 200);
    const writers = (
      (await context.api.post(`${base()}/roles`, { displayName: 'writers', permissions: ['imodels_write'] })).body as {
        role: { id: string };
      }
    ).role.id;
    await context.api.patch(`${base()}/members/groups/${group.id}`, { roleIds: [writers] });
    assert.ok(JSON.stringify((await max.get(`${base()}/permissions`)).body).includes('imodels_write'));
    const { groups } = (await context.api.get(`${base()}/groups`)).body as { groups: { id: string }[] };
    const { group: one } = (await context.api.get(`${base()}/groups/${group.id}`)).body as {
      group: { name: string; description: string };
    };
    const { member } = (await context.api.get(`${base()}/members/groups/${group.id}`)).body as {
      member: { roles: { id: string }[] };
    };
    assert.deepEqual(
      [groups.map(({ id }) => id), one.name, one.description, member.roles.map(({ id }) => id)],
      [[group.id], 'the crew', 'of the site', [writers]],
    );
    const { members } = (await context.api.get(`${base()}/members/groups`)).body as {
      members: { groupName: string; roles: { id: string }[] }[];
    };
    assert.deepEqual(
      members.map(({ groupName, roles }) => [groupName, roles.map(({ id }) => id)]),
      [['the crew', [writers]]],
    );
    assert.equal((await context.api.delete(`${base()}/members/groups/${group.id}`)).status, 204);
    assert.equal((await iModels()).status, 404);
    await context.api.post(`${base()}/members/groups`, { members: [{ groupId: group.id, roleIds: [roleId] }] });
    assert.equal((await context.api.delete(`${base()}/groups/${group.id}`)).status, 204);
    assert.equal((await iModels()).status, 404);
    assert.equal(codeOf(await context.api.get(`${base()}/groups/${group.id}`)), 'GroupNotFound');
    const unknown = await context.api.post(`${base()}/groups`, { name: 'x', members: ['nobody@example.test'] });
    assert.deepEqual([unknown.status, codeOf(unknown)], [404, 'TeamMemberNotFound']);
    assert.match(
      (unknown.body as WireError).error.details?.[0]?.message ?? '',
      /^'nobody@example.test' is not a known user\./,
    );
  });

  test('owners have all permissions, can add owners, and at least one always remains', async () => {
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
    // An administrator of the organization can repair it.
    const admin = await context.server.as('admin');
    assert.equal((await admin.post(owners, { email: people.olivia.email })).status, 201);
    assert.equal((await context.api.delete(`${owners}/${people.max.id}`)).status, 204);
    assert.equal((await max.get(owners)).status, 404);
  });
});
