import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test } from 'node:test';
import { BriefcaseOrderByProperty, OrderByOperator, UserOrderByProperty } from '@itwin/imodels-client-management';
import type { WireError } from './support/api.ts';
import { all, makeIModel, official } from './support/clients.ts';
import { people } from './support/server.ts';
import { onEachDatabase } from './support/suite.ts';

onEachDatabase('Briefcases', {}, (context) => {
  const as = () => ({ authorization: context.olivia.authorization });

  test('are numbered from 2, belong to the user who acquired them, and link to owner and checkpoint', async () => {
    const { id: iModelId } = await makeIModel(context.olivia, context.iTwinId);
    const first = await context.olivia.client.briefcases.acquire({ ...as(), iModelId });
    assert.deepEqual(
      [first.briefcaseId, first.id, first.displayName, first.deviceName, first.ownerId],
      [2, '2', '#2', null, people.olivia.id],
    );
    assert.deepEqual(first.application, { id: 'suite', name: 'Test suite' });
    assert.ok(first.fileSize > 0);
    assert.equal((await first.getOwner())?.id, people.olivia.id);
    // Rule of the wire: the checkpoint of a brand-new iModel is available at once, in both forms.
    const checkpoint = await first.getCheckpoint();
    assert.deepEqual(
      [checkpoint?.state, checkpoint?.changesetIndex, checkpoint?.changesetId, checkpoint?.dbName],
      ['successful', 0, null, 'BASELINE.bim'],
    );
    assert.ok(checkpoint?.directoryAccessInfo !== null && checkpoint?._links.download !== null);
    const named = await context.olivia.client.briefcases.acquire({
      ...as(),
      iModelId,
      briefcaseProperties: { deviceName: 'my desk' },
    });
    assert.deepEqual([named.briefcaseId, named.displayName, named.deviceName], [3, '#3 my desk', 'my desk']);
    const found = await context.olivia.client.briefcases.getSingle({ ...as(), iModelId, briefcaseId: 3 });
    assert.equal(found.deviceName, 'my desk');
  });

  test('are listed in strict order of acquisition, by owner and in pages', async () => {
    const { id: iModelId } = await makeIModel(context.olivia, context.iTwinId);
    await context.server.grant(context.iTwinId, 'max', ['imodels_read']);
    const max = await official(context.server, 'max');
    for (let n = 0; n < 4; n++) await context.olivia.client.briefcases.acquire({ ...as(), iModelId });
    await max.client.briefcases.acquire({ authorization: max.authorization, iModelId });
    const list = (urlParams: object) =>
      all(context.olivia.client.briefcases.getRepresentationList({ ...as(), iModelId, urlParams }));
    const ascending = await list({ $orderBy: { property: BriefcaseOrderByProperty.AcquiredDateTime }, $top: 2 });
    assert.deepEqual(
      ascending.map(({ briefcaseId }) => briefcaseId),
      [2, 3, 4, 5, 6],
    );
    for (let n = 1; n < 5; n++)
      assert.ok(
        Date.parse(ascending[n]?.acquiredDateTime as never) > Date.parse(ascending[n - 1]?.acquiredDateTime as never),
      );
    const descending = await list({
      $orderBy: { property: BriefcaseOrderByProperty.AcquiredDateTime, operator: OrderByOperator.Descending },
      $top: 3,
    });
    assert.deepEqual(
      descending.map(({ briefcaseId }) => briefcaseId),
      [6, 5, 4, 3, 2],
    );
    assert.equal((await list({ ownerId: 'me' })).length, 4);
    assert.deepEqual(
      (await list({ ownerId: people.max.id })).map(({ briefcaseId }) => briefcaseId),
      [6],
    );
    assert.deepEqual(await list({ ownerId: randomUUID() }), []);
  });

  test('are released by their owner or a manager, and their ids are never reissued', async () => {
    const iTwinId = await context.server.iTwin();
    await context.server.grant(iTwinId, 'max', ['imodels_read']);
    const { id: iModelId } = await makeIModel(context.olivia, iTwinId);
    const max = await official(context.server, 'max');
    const maxApi = await context.server.as('max');
    await context.olivia.client.briefcases.acquire({ ...as(), iModelId });
    const own = await max.client.briefcases.acquire({ authorization: max.authorization, iModelId });
    const foreign = await maxApi.delete(`/imodels/${iModelId}/briefcases/2`);
    assert.deepEqual([foreign.status, (foreign.body as WireError).error.code], [403, 'InsufficientPermissions']);
    assert.equal((await maxApi.delete(`/imodels/${iModelId}/briefcases/${own.briefcaseId}`)).status, 204);
    await context.olivia.client.briefcases.release({ ...as(), iModelId, briefcaseId: 2 });
    assert.deepEqual(await all(context.olivia.client.briefcases.getMinimalList({ ...as(), iModelId })), []);
    assert.equal((await context.olivia.client.briefcases.acquire({ ...as(), iModelId })).briefcaseId, 4);
  });

  test('unknown briefcases and device names that are too long are refused', async () => {
    const { id } = await makeIModel(context.olivia, context.iTwinId);
    for (const [method, name] of [
      ['GET', '555'],
      ['GET', 'x'],
      ['GET', '99999999999999999999'],
      ['DELETE', '555'],
    ] as const) {
      const answer = await context.api.send(method, `/imodels/${id}/briefcases/${name}`);
      assert.deepEqual(
        [answer.status, answer.body],
        [404, { error: { code: 'BriefcaseNotFound', message: 'Requested Briefcase is not available.' } }],
      );
    }
    const long = await context.api.post(`/imodels/${id}/briefcases`, { deviceName: 'd'.repeat(256) });
    assert.deepEqual(long.body, {
      error: {
        code: 'InvalidiModelsRequest',
        message: 'Cannot acquire Briefcase.',
        details: [
          {
            code: 'InvalidValue',
            message: "Provided 'deviceName' is not valid. The value exceeds allowed 255 characters.",
            target: 'deviceName',
          },
        ],
      },
    });
    assert.equal((await context.api.post(`/imodels/${id}/briefcases`)).status, 201);
  });
});

onEachDatabase('Users', {}, (context) => {
  const as = () => ({ authorization: context.olivia.authorization });

  test('of an iModel are all users who ever connected, with their statistics', async () => {
    const iTwinId = await context.server.iTwin();
    await context.server.grant(iTwinId, 'max', ['imodels_read']);
    const { id: iModelId } = await makeIModel(context.olivia, iTwinId, { changesets: 3 });
    const listed = () =>
      all(
        context.olivia.client.users.getRepresentationList({
          ...as(),
          iModelId,
          urlParams: { $orderBy: { property: UserOrderByProperty.GivenName }, $top: 1 },
        }),
      );
    assert.deepEqual(
      (await listed()).map(({ id }) => id),
      [people.olivia.id],
    );
    assert.equal((await (await context.server.as('max')).get(`/imodels/${iModelId}`)).status, 200);
    const [max, olivia] = await listed();
    assert.deepEqual(
      [max?.id, max?.displayName, max?.givenName, max?.surname, max?.email],
      [people.max.id, people.max.email, 'max', 'Tester', people.max.email],
    );
    assert.deepEqual([max?.statistics.pushedChangesetsCount, max?.statistics.lastChangesetPushDate], [0, null]);
    assert.deepEqual([olivia?.id, olivia?.statistics.pushedChangesetsCount], [people.olivia.id, 3]);
    assert.notEqual(olivia?.statistics.lastChangesetPushDate, null);
    const single = await context.olivia.client.users.getSingle({ ...as(), iModelId, userId: people.max.id });
    assert.equal(single.email, people.max.email);
  });

  test('report their last access to the iModel, to the minute', async (t) => {
    const iTwinId = await context.server.iTwin();
    await context.server.grant(iTwinId, 'max', ['imodels_read']);
    const { id: iModelId } = await makeIModel(context.olivia, iTwinId, { changesets: 1 });
    const max = await context.server.as('max');
    const lastAccess = async (): Promise<number> => {
      const { user } = (await context.api.get(`/imodels/${iModelId}/users/${people.max.id}`)).body as {
        user: { statistics: { lastAccessTime: string } };
      };
      return Date.parse(user.statistics.lastAccessTime);
    };
    const before = Date.now();
    await max.get(`/imodels/${iModelId}`);
    const first = await lastAccess();
    assert.ok(first >= before && first <= Date.now(), `${first}`);
    const later = Date.now() + 120_000;
    t.mock.method(Date, 'now', () => later);
    t.mock.method(performance, 'now', () => later);
    await max.get(`/imodels/${iModelId}`);
    assert.equal(await lastAccess(), later);
    const listed = (await context.api.get(`/imodels/${iModelId}/users`, { prefer: 'return=representation' })).body as {
      users: { id: string; statistics: { lastAccessTime: string } }[];
    };
    assert.equal(
      listed.users.find(({ id }) => id === people.max.id)?.statistics.lastAccessTime,
      new Date(later).toISOString(),
    );
  });

  test('unknown users answer UserNotFound', async () => {
    const { id } = await makeIModel(context.olivia, context.iTwinId);
    for (const name of [people.eve.id, randomUUID(), 'nobody', '%00']) {
      const answer = await context.api.get(`/imodels/${id}/users/${name}`);
      assert.deepEqual(
        [answer.status, answer.body],
        [404, { error: { code: 'UserNotFound', message: 'Requested User is not available.' } }],
      );
    }
  });
});

onEachDatabase('iTwins', {}, (context) => {
  interface Listed {
    iTwins: { id: string; displayName: string; status?: string }[];
    _links: { next: { href: string } | null };
  }
  const list = async (query = ''): Promise<Listed> => (await context.api.get(`/itwins${query}`)).body as Listed;

  test('are created in the caller’s organization, and only members can read them', async () => {
    const created = await context.api.post('/itwins', {
      displayName: 'Bridge',
      class: 'Endeavor',
      subClass: 'Project',
      number: 'B-1',
      type: 'Construction',
      geographicLocation: 'Exton',
      dataCenterLocation: 'East US',
      status: 'Trial',
    });
    assert.equal(created.status, 201);
    const { iTwin } = created.body as { iTwin: Record<string, unknown> };
    const { id, createdDateTime, ...rest } = iTwin;
    assert.ok(Date.parse(createdDateTime as string) > 0);
    assert.deepEqual(rest, {
      class: 'Endeavor',
      subClass: 'Project',
      type: 'Construction',
      number: 'B-1',
      displayName: 'Bridge',
      geographicLocation: 'Exton',
      dataCenterLocation: 'East US',
      status: 'Trial',
      parentId: people.olivia.organizationId,
      iTwinAccountId: people.olivia.organizationId,
      imageName: null,
      image: null,
      createdBy: people.olivia.id,
    });
    assert.deepEqual((await context.api.get(`/itwins/${id as string}`)).body, { iTwin });
    for (const [who, status] of [
      ['max', 404],
      ['eve', 404],
      ['foreignAdmin', 404],
      ['admin', 200],
    ] as const)
      assert.equal((await (await context.server.as(who)).get(`/itwins/${id as string}`)).status, status, who);
    const exists = await context.api.post('/itwins', { displayName: 'Bridge', class: 'Endeavor', subClass: 'Project' });
    assert.deepEqual(
      [exists.status, (exists.body as WireError).error.code, (exists.body as WireError).error.details?.[0]?.target],
      [409, 'iTwinExists', 'displayName'],
    );
  });

  test('are listed with the documented filters', async () => {
    const make = (displayName: string, more: object = {}) =>
      context.api.post('/itwins', { displayName, class: 'Endeavor', subClass: 'Project', ...more });
    await make('Filter Alpha', { number: 'F-1' });
    await make('Filter Beta', { number: 'F-2', status: 'Inactive' });
    await make('Filter Gamma', { class: 'Thing', subClass: 'Asset', type: 'Pump' });
    const names = async (query: string): Promise<string[]> =>
      (await list(query)).iTwins
        .map(({ displayName }) => displayName)
        .filter((name) => name.startsWith('Filter'))
        .toSorted();
    assert.deepEqual(await names('?$top=1000'), ['Filter Alpha', 'Filter Gamma']);
    assert.deepEqual(await names('?includeInactive=true'), ['Filter Alpha', 'Filter Beta', 'Filter Gamma']);
    assert.deepEqual(await names('?status=Inactive'), ['Filter Beta']);
    assert.deepEqual(await names('?displayName=Filter Alpha'), ['Filter Alpha']);
    assert.deepEqual(await names('?number=F-1'), ['Filter Alpha']);
    assert.deepEqual(await names('?$search=gAMMA'), ['Filter Gamma']);
    assert.deepEqual(await names('?subClass=Asset,Program'), ['Filter Gamma']);
    assert.deepEqual(await names('?class=Thing'), ['Filter Gamma']);
    assert.deepEqual(await names('?type=Pump'), ['Filter Gamma']);
    const page = await list('?$top=1&$orderBy=displayName desc');
    assert.equal(page.iTwins.length, 1);
    assert.ok(page._links.next?.href.includes('$orderBy='));
    for (const query of [
      '?$search=a&number=b',
      '?status=Active&includeInactive=true',
      '?subClass=Nothing',
      '?status=Asleep',
      '?$top=0',
    ])
      assert.equal((await context.api.get(`/itwins${query}`)).status, 422, query);
  });

  test('can be changed by permitted users, except for immutable properties', async () => {
    const [id, other] = [
      await context.server.iTwin('olivia', 'To be changed'),
      await context.server.iTwin('olivia', 'Taken name'),
    ];
    const patch = (body: object, headers: Record<string, string> = {}) =>
      context.api.send('PATCH', `/itwins/${id}`, JSON.stringify(body), {
        'content-type': 'application/json-patch+json',
        ...headers,
      });
    const changed = await patch({ displayName: 'Changed', status: 'Inactive', type: null });
    const { iTwin } = changed.body as { iTwin: Record<string, unknown> };
    assert.deepEqual(
      [changed.status, iTwin['displayName'], iTwin['status'], iTwin['number']],
      [200, 'Changed', 'Inactive', id],
    );
    assert.deepEqual(
      (await list('?$search=CHANGED&includeInactive=true')).iTwins.map((found) => found.id).includes(id),
      true,
    );
    const taken = await patch({ displayName: 'Taken name' }, { 'content-type': 'application/json' });
    assert.deepEqual([taken.status, (taken.body as WireError).error.code], [409, 'iTwinExists']);
    const fixed = await patch({ id: other, class: 'Thing', dataCenterLocation: 'East US' });
    assert.deepEqual((fixed.body as WireError).error.details, [
      { code: 'ReadOnlyProperty', message: 'Id is read only and cannot be modified.', target: 'id' },
      { code: 'ReadOnlyProperty', message: 'Class is read only and cannot be modified.', target: 'class' },
      {
        code: 'ReadOnlyProperty',
        message: 'DataCenterLocation is read only and should not be set.',
        target: 'dataCenterLocation',
      },
    ]);
    assert.equal((await patch({ status: 'Asleep' })).status, 422);
    assert.equal((await (await context.server.as('eve')).patch(`/itwins/${id}`, { displayName: 'Mine' })).status, 404);
  });

  test('can be favorites and recents of each user, as long as that user may see them', async () => {
    const [first, second] = [
      await context.server.iTwin('olivia', 'Mark A'),
      await context.server.iTwin('olivia', 'Mark B'),
    ];
    const marked = async (kind: string, api = context.api): Promise<string[]> =>
      ((await api.get(`/itwins/${kind}`)).body as Listed).iTwins.map(({ displayName }) => displayName);
    for (const kind of ['favorites', 'recents']) {
      for (const id of [first, second, first])
        assert.equal((await context.api.post(`/itwins/${kind}/${id}`)).status, 204);
      // The first was marked again: it moved to the front of the recents, and kept its place among the favorites.
      assert.deepEqual(await marked(kind), ['Mark A', 'Mark B']);
      assert.equal((await context.api.delete(`/itwins/${kind}/${first}`)).status, 204);
      assert.deepEqual(await marked(kind), ['Mark B']);
      const max = await context.server.as('max');
      assert.equal((await max.post(`/itwins/${kind}/${second}`)).status, 404);
    }
    await context.server.grant(second, 'max', ['imodels_webview']);
    const max = await context.server.as('max');
    assert.equal((await max.post(`/itwins/favorites/${second}`)).status, 204);
    assert.deepEqual(await marked('favorites', max), ['Mark B']);
    await context.api.delete(`/accesscontrol/itwins/${second}/members/users/${people.max.id}`);
    assert.deepEqual(await marked('favorites', max), []);
  });

  test('invalid iTwins are refused with all errors at once', async () => {
    const answer = await context.api.post('/itwins', { class: 'Sky', type: 't'.repeat(101) });
    assert.equal(answer.status, 422);
    const { error } = answer.body as WireError;
    assert.deepEqual([error.code, error.message], ['InvalidiTwinsRequest', 'Cannot create iTwin.']);
    assert.deepEqual(error.details?.map(({ target }) => target).toSorted(), [
      'class',
      'displayName',
      'subClass',
      'type',
    ]);
    const elsewhere = await context.api.post('/itwins', {
      displayName: 'x',
      class: 'Thing',
      subClass: 'Asset',
      dataCenterLocation: 'Moon',
    });
    assert.deepEqual((elsewhere.body as WireError).error.details, [
      { code: 'InvalidValue', message: 'DataCenterLocation value is incorrect.', target: 'dataCenterLocation' },
    ]);
  });
});

onEachDatabase('Briefcase quotas', { briefcases: { perUser: 7, perMinute: 5 } }, (context) => {
  test('refuse the sixth briefcase in a minute and the eighth in total, not counting released ones', async (t) => {
    const made = await makeIModel(context.olivia, context.iTwinId);
    const acquire = () => context.api.post(`/imodels/${made.id}/briefcases`, {});
    for (let n = 0; n < 5; n++) assert.equal((await acquire()).status, 201);
    const sixth = await acquire();
    assert.deepEqual(
      [sixth.status, sixth.body],
      [
        429,
        { error: { code: 'RateLimitExceeded', message: 'Maximum number of briefcases per user per minute reached.' } },
      ],
    );
    assert.match(sixth.headers.get('retry-after') ?? '', /^[1-9]\d?$/);
    assert.equal((await (await context.server.as('admin')).post(`/imodels/${made.id}/briefcases`, {})).status, 201);
    assert.equal((await context.api.delete(`/imodels/${made.id}/briefcases/2`)).status, 204);
    assert.equal((await acquire()).status, 201);
    const later = Date.now() + 61_000;
    t.mock.method(Date, 'now', () => later);
    assert.equal((await acquire()).status, 201);
    assert.equal((await acquire()).status, 201);
    const eighth = await acquire();
    assert.equal(eighth.status, 422);
    assert.deepEqual((eighth.body as WireError).error, {
      code: 'InvalidiModelsRequest',
      message: 'Cannot acquire Briefcase.',
      details: [
        {
          code: 'ResourceQuotaExceeded',
          message: 'Maximum number of Briefcases per user limit reached.',
          innerError: { code: 'MaximumNumberOfBriefcasesPerUser' },
        },
      ],
    });
  });
});
