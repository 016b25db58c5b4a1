import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import type { IModelAccess } from '../apps/server/src/access/permissions.ts';
import { userOfEntry } from '../apps/server/src/access/directory.ts';
import { cloneInOneStatement } from '../apps/server/src/cloning/cloneStatement.ts';
import type { Caller } from '../apps/server/src/domain.ts';
import type { Stores } from '../apps/server/src/storage/stores.ts';
import { makeIModel, official } from './support/clients.ts';
import { engines, Installation, people, type PersonName, type TestServer } from './support/server.ts';

const skip = engines.includes('postgres') ? false : 'there is no PostgreSQL';

describe('A clone in one statement on PostgreSQL', { skip }, () => {
  let installation: Installation;
  let server: TestServer;
  before(async () => {
    installation = await Installation.create('postgres');
    server = await installation.start();
  });
  after(async () => {
    await server.close();
    installation.remove();
  });

  const callerOf = (who: PersonName): Caller => ({
    user: userOfEntry(people[who]),
    application: { id: 'suite', name: 'Test suite', tier: 'Unlimited' },
    administeredOrganizationIds: [],
  });
  const parts = () => {
    const { database, quotas, blobs } = server.services;
    return { database, quotas, stores: { ofDataCenter: () => blobs } as unknown as Stores };
  };
  const accessOf = async (who: PersonName, id: string): Promise<IModelAccess> =>
    (await server.services.permissions.onIModel(callerOf(who), id)) as IModelAccess;
  const clone = (who: PersonName, source: IModelAccess): Promise<string | undefined> =>
    cloneInOneStatement(parts(), { caller: callerOf(who), source, target: source.onITwin, name: randomUUID() });
  const source = async (changesets = 0) => {
    const iTwinId = await server.iTwin();
    return makeIModel(await official(server), iTwinId, { changesets, description: 'a Source' });
  };
  /** Every row that belongs to an iModel, without what is its own: ids, times and names. */
  const rowsOf = async (id: string): Promise<string> => {
    const { db } = server.services.database;
    const imodel = await db.selectFrom('imodel').selectAll().where('id', '=', id).executeTakeFirstOrThrow();
    const { id: operationId, ...operation } = await db
      .selectFrom('operation')
      .selectAll()
      .where('imodel_id', '=', id)
      .executeTakeFirstOrThrow();
    const { id: auditId, ...audit } = await db
      .selectFrom('audit')
      .selectAll()
      .where('imodel_id', '=', id)
      .executeTakeFirstOrThrow();
    assert.notEqual(operationId, auditId);
    return [imodel.id, imodel.name].reduce(
      (text, own, n) => text.replaceAll(own.toLowerCase(), `own ${n}`).replaceAll(own, `own ${n}`),
      JSON.stringify({ imodel, operation, audit }).replaceAll(String(imodel.created_at), 'now'),
    );
  };

  for (const changesets of [0, 2])
    test(`writes the rows that the transaction writes, with ${changesets} changesets`, async () => {
      const made = await source(changesets);
      const api = await server.as('olivia');
      const idOf = async (body: object, headers = {}): Promise<string> => {
        const { status, headers: answered } = await api.post(`/imodels/${made.id}/clone`, body, headers);
        assert.equal(status, 202);
        return (answered.get('location') as string).split('/').at(-1) as string;
      };
      for (const properties of [{}, { description: 'Another ÄÖ', containersEnabled: 2 }]) {
        const body = () => ({ iTwinId: made.iTwinId, name: `Klon ${randomUUID()}`, ...properties });
        // A request with a key needs the transaction.
        const inTransaction = await idOf(body(), { 'idempotency-key': randomUUID() });
        assert.equal(await rowsOf(await idOf(body())), await rowsOf(inTransaction));
      }
    });

  test('has an effect for owners and for members', async () => {
    const made = await source();
    await server.grant(made.iTwinId, 'max', ['imodels_manage']);
    await server.grant(made.iTwinId, 'max', ['imodels_read', 'imodels_webview']);
    for (const who of ['olivia', 'max'] as const)
      assert.ok((await clone(who, await accessOf(who, made.id))) !== undefined, who);
  });

  const changes: Record<string, (made: { id: string; iTwinId: string }, roleId: string) => Promise<unknown>> = {
    'a role lost a permission': ({ iTwinId }, roleId) =>
      ask('patch', `/accesscontrol/itwins/${iTwinId}/roles/${roleId}`, { permissions: ['imodels_read'] }),
    'the member was removed': ({ iTwinId }) =>
      ask('delete', `/accesscontrol/itwins/${iTwinId}/members/users/${people.max.id}`),
    'the source has permissions of its own': ({ id }) =>
      server.services.database.db.updateTable('imodel').set({ secured_by: 'users' }).where('id', '=', id).execute(),
    'the source was renamed': ({ id }) => ask('patch', `/imodels/${id}`, { name: randomUUID() }),
    'the source was deleted': ({ id }) => ask('delete', `/imodels/${id}`),
    'the iTwin was deleted': ({ iTwinId }) =>
      server.services.database.db.updateTable('itwin').set({ deleted_at: 1 }).where('id', '=', iTwinId).execute(),
    'a webhook waits for events of the iTwin': ({ iTwinId }) =>
      ask('post', `/itwins/${iTwinId}/webhooks`, {
        callbackUrl: 'https://127.0.0.1:9/',
        eventTypes: ['iModels.iModelCreated.v1'],
        isActive: true,
      }),
  };
  const ask = async (method: 'patch' | 'delete' | 'post', path: string, body?: object): Promise<void> => {
    const api = await server.as('olivia');
    const { status, body: answer } = method === 'delete' ? await api.delete(path) : await api[method](path, body);
    assert.ok(status < 300, `${status} ${JSON.stringify(answer)}`);
  };

  for (const [what, change] of Object.entries(changes))
    test(`writes nothing if ${what} since the permissions were read`, async () => {
      const made = await source();
      const roleId = await server.grant(made.iTwinId, 'max', ['imodels_manage']);
      const access = await accessOf('max', made.id);
      await change(made, roleId);
      const count = async (): Promise<number> => {
        const rows = await server.services.database.db
          .selectFrom('imodel')
          .select('id')
          .where('source_id', '=', made.id)
          .execute();
        return rows.length;
      };
      assert.equal(await clone('max', access), undefined);
      assert.equal(await count(), 0);
    });
});
