/**
 * Attacks by a user who may clone an iModel at the time of the request and loses that permission before the copy is complete: the
 * copy is never accessible, and neither while it waits nor after it failed does it reveal anything of the source.
 */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { describe, test } from 'node:test';
import { requirePermitted } from '../../apps/server/src/cloning/stillPermitted.ts';
import type { BlobStore } from '../../apps/server/src/storage/blobStore.ts';
import type { TransferOrder } from '../../apps/server/src/transfer/begin.ts';
import type { Answer } from '../support/api.ts';
import { makeIModel, official } from '../support/clients.ts';
import {
  endServer,
  Installation,
  otherStore,
  setups,
  type PersonName,
  type Setup,
  type TestServer,
} from '../support/server.ts';
import { until } from '../support/until.ts';

const west = 'West Europe';
const reason = 'The requester no longer has the permissions that this iModel needs.';

/** Max manages the iTwin of the source, and one in another data center, where Olivia may create iModels too. */
async function attack(
  setup: Setup,
  body: (
    server: TestServer,
    parts: { source: string; iTwinId: string; role: string; far: string; store: BlobStore },
  ) => Promise<void>,
): Promise<void> {
  const installation = await Installation.create(setup);
  let server: TestServer | undefined;
  try {
    server = await installation.start({
      dataCenters: { [west]: otherStore(setup) },
      transfers: { firstRetrySeconds: 0 },
    });
    const iTwinId = await server.iTwin();
    const role = await server.grant(iTwinId, 'max', ['imodels_manage']);
    const far = await server.iTwin('max', undefined, west);
    await server.grant(far, 'olivia', ['imodels_manage'], 'max');
    const source = await makeIModel(await official(server), iTwinId, { changesets: 2 });
    await body(server, {
      source: source.id,
      iTwinId,
      role,
      far,
      store: server.services.blobs.stores.ofDataCenter(west),
    });
  } finally {
    await endServer(server);
  }
}

async function clone(server: TestServer, source: string, far: string, who: PersonName = 'max'): Promise<string> {
  const answer = await (await server.as(who)).post(`/imodels/${source}/clone`, { iTwinId: far, name: randomUUID() });
  assert.equal(answer.status, 202, JSON.stringify(answer.body));
  return (answer.headers.get('location') ?? '').slice(-36);
}

/** A clone by Max whose copy was attempted, and waits because its store is unavailable. */
async function waitingClone(server: TestServer, source: string, far: string, store: BlobStore): Promise<string> {
  const remoteStore = () => Promise.reject(new Error('the store is away'));
  Object.assign(store, { put: remoteStore, copyFrom: remoteStore });
  const id = await clone(server, source, far);
  await until(
    'an attempt',
    async () =>
      (
        await server.services.database.db
          .selectFrom('job')
          .select('last_error')
          .where('subject_id', '=', id)
          .executeTakeFirst()
      )?.last_error ?? undefined,
  );
  return id;
}

/** The store is available again. */
function restoreStore(store: BlobStore): void {
  for (const name of ['put', 'copyFrom']) Reflect.deleteProperty(store, name);
}

async function outcome(server: TestServer, id: string): Promise<[state: string, failureReason: string | null]> {
  const api = await server.as('admin');
  return until('the end of the copy', async () => {
    const { createOperation } = (await api.get(`/imodels/${id}/operations/create`)).body as {
      createOperation: { state: string; failureReason: string | null };
    };
    return createOperation.state === 'scheduled' || createOperation.state === 'inProgress'
      ? undefined
      : [createOperation.state, createOperation.failureReason];
  });
}

/** Every route to the data of an iModel answers only that it is not initialized. */
async function requireClosed(server: TestServer, id: string): Promise<void> {
  const api = await server.as('max');
  for (const path of [
    'changesets',
    'changesets/1',
    'changesets/1/checkpoint',
    'changesets/0/checkpoint',
    'briefcases',
    'namedversions',
  ]) {
    const { status, body } = await api.get(`/imodels/${id}/${path}`);
    assert.equal(status, 409, `${path}: ${JSON.stringify(body)}`);
  }
  const answers: Answer[] = [
    await api.get(`/imodels/${id}`),
    await api.get(`/imodels/${id}/baselinefile`),
    await api.post(`/imodels/${id}/clone`, { iTwinId: await server.iTwin('max'), name: randomUUID() }),
  ];
  for (const { body } of answers) assert.doesNotMatch(JSON.stringify(body), /[?&]sig=|changesets\/[1-9]/);
  const token = server.services.signedLinks.containerToken(`imodelblocks-${id}`, 60);
  assert.equal((await fetch(`${server.origin}/storage/imodelblocks-${id}/manifest.bcv?${token}`)).status, 404);
}

for (const setup of setups)
  describe(`A clone whose requester loses permission, on ${setup.engine} and ${setup.store}`, () => {
    test('fails and reveals nothing if the copy has not begun', { timeout: 120_000 }, () =>
      attack(setup, async (server, { source, iTwinId, role, far, store }) => {
        const id = await waitingClone(server, source, far, store);
        await requireClosed(server, id);
        assert.equal(
          (
            await (
              await server.as('olivia')
            ).patch(`/accesscontrol/itwins/${iTwinId}/roles/${role}`, { permissions: [] })
          ).status,
          200,
        );
        restoreStore(store);
        assert.deepEqual(await outcome(server, id), ['failed', reason]);
        await requireClosed(server, id);
      }),
    );

    test(
      'fails also when the source is deleted afterwards, while that of a requester who keeps permission succeeds without its source',
      { timeout: 120_000 },
      () =>
        attack(setup, async (server, { source, iTwinId, role, far, store }) => {
          const olivia = await server.as('olivia');
          const lost = await waitingClone(server, source, far, store);
          const other = await makeIModel(await official(server), iTwinId, { changesets: 1 });
          const kept = await clone(server, other.id, far, 'olivia');
          assert.equal(
            (await olivia.patch(`/accesscontrol/itwins/${iTwinId}/roles/${role}`, { permissions: [] })).status,
            200,
          );
          for (const id of [source, other.id]) assert.equal((await olivia.delete(`/imodels/${id}`)).status, 204);
          restoreStore(store);
          assert.deepEqual(await outcome(server, lost), ['failed', reason]);
          assert.deepEqual(await outcome(server, kept), ['successful', null]);
        }),
    );

    test(
      'succeeds at whichever moment of the check the source is deleted, if its requester keeps permission',
      { timeout: 120_000 },
      () =>
        attack(setup, async (server, { source, iTwinId, far, store }) => {
          const target = await waitingClone(server, source, far, store);
          const olivia = await server.as('olivia');
          const payload = await server.services.database.db
            .selectFrom('job')
            .select('payload')
            .where('subject_id', '=', target)
            .executeTakeFirstOrThrow();
          const { caller } = JSON.parse(payload.payload) as TransferOrder;
          let statements = 0;
          for (let moment = 1; moment === 1 || statements >= moment; moment++) {
            const { id: fromIModelId } = await makeIModel(await official(server), iTwinId, { changesets: 0 });
            statements = 0;
            const db = server.services.database.db.withPlugin({
              transformQuery: ({ node }) => node,
              async transformResult({ result }) {
                if (++statements === moment)
                  assert.equal((await olivia.delete(`/imodels/${fromIModelId}`)).status, 204);
                return result;
              },
            });
            await requirePermitted(db, target, { caller, fromIModelId });
          }
        }),
    );
  });
