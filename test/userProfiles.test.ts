import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test } from 'node:test';
import type { WireError } from './support/api.ts';
import { makeIModel } from './support/clients.ts';
import { people } from './support/server.ts';
import { onEachDatabase } from './support/suite.ts';

onEachDatabase('The Users API', {}, (context) => {
  const profileOf = ({ id, email, givenName, surname }: (typeof people)[keyof typeof people]) => ({
    id,
    email,
    givenName,
    surname,
    organizationName: 'Home',
  });

  test('says who the caller is, with null for what the server does not know', async () => {
    const { status, body } = await context.api.get('/users/me');
    assert.equal(status, 200);
    const { createdDateTime, ...user } = (body as { user: { createdDateTime: string } }).user;
    assert.deepEqual(user, {
      ...profileOf(people.olivia),
      displayName: people.olivia.email,
      alternateEmail: null,
      phone: null,
      city: null,
      country: null,
      language: null,
    });
    assert.ok(Math.abs(Date.parse(createdDateTime) - Date.now()) < 3_600_000);
  });

  test('shows users of the own organization, also before their first request, and no others', async () => {
    const eve = await context.server.as('eve');
    await eve.get('/users/me');
    assert.deepEqual((await context.api.get(`/users/${people.max.id}`)).body, { user: profileOf(people.max) });
    assert.equal((await context.api.get(`/users/${people.olivia.id}`)).status, 200);
    for (const id of [people.eve.id, people.foreignAdmin.id, randomUUID(), 'x'.repeat(300), '%00']) {
      const { status, body } = await context.api.get(`/users/${id}`);
      assert.deepEqual(
        [status, body],
        [404, { error: { code: 'UserNotFound', message: 'Requested user is not available.' } }],
        id,
      );
    }
    // An administrator of both organizations sees the users of both.
    const consultant = await context.server.as('consultant');
    assert.equal((await consultant.get(`/users/${people.max.id}`)).status, 200);
    assert.equal((await consultant.get(`/users/${people.eve.id}`)).status, 200);
  });

  test('finds up to 1,000 users by a list of ids, in its order, and leaves out the others', async () => {
    const list = (body: unknown) => context.api.post('/users/getbyidlist', body);
    const { status, body } = await list([people.max.id, randomUUID(), people.eve.id, people.olivia.id, people.max.id]);
    assert.deepEqual([status, body], [200, { users: [profileOf(people.max), profileOf(people.olivia)] }]);
    assert.deepEqual((await list([])).body, { users: [] });
    const many = Array.from({ length: 999 }, () => randomUUID());
    assert.deepEqual((await list([...many, people.max.id])).body, { users: [profileOf(people.max)] });
    const tooMany = await list(Array.from({ length: 1001 }, () => people.max.id));
    assert.deepEqual(
      [tooMany.status, tooMany.body],
      [
        422,
        {
          error: {
            code: 'InvalidUsersRequest',
            message: 'Cannot query users.',
            details: [
              {
                code: 'InvalidValue',
                message: 'The request body cannot contain more than 1000 user Ids.',
                target: 'request',
              },
            ],
          },
        },
      ],
    );
    for (const bad of [{}, { ids: [people.max.id] }, 'x', [5], [null], [['a']]]) {
      const answer = await list(bad);
      assert.deepEqual(
        [answer.status, (answer.body as WireError).error.code],
        [422, 'InvalidUsersRequest'],
        JSON.stringify(bad),
      );
    }
  });

  test('tells holders of a share nothing about users', async () => {
    const { id } = await makeIModel(context.olivia, context.iTwinId);
    const made = await context.api.post(`/imodels/${id}/shares`, {
      name: 'share',
      permission: 'imodels_read',
      expiresAt: new Date(Date.now() + 3_600_000).toISOString(),
    });
    assert.equal(made.status, 201, JSON.stringify(made.body));
    const { shareKey } = (made.body as { share: { shareKey: string } }).share;
    const asHolder = { authorization: `Basic ${shareKey}` };
    for (const path of ['/users/me', `/users/${people.olivia.id}`])
      assert.equal((await context.api.get(path, asHolder)).status, 404, path);
    assert.notEqual((await context.api.post('/users/getbyidlist', [people.olivia.id], asHolder)).status, 200);
  });
});
