/**
 * An attack on the data of others, by a user who has a file and wants to know who else has it: the file is copied into the data
 * center of the others, and the duration reveals whether it existed there. So no file is skipped that only another organization has.
 */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { describe, test } from 'node:test';
import { CheckpointState } from '@itwin/imodels-client-management';
import { isITwinJsInstalled } from '../../apps/server/src/checkpoints/itwinjs/workerProcess.ts';
import type { ConfigInput } from '../../apps/server/src/config.ts';
import { pushSample } from '../../scripts/sample.ts';
import { makeIModel, official } from '../support/clients.ts';
import {
  bootServer,
  endServer,
  otherStore,
  setups,
  type PersonName,
  type Setup,
  type TestServer,
} from '../support/server.ts';
import { until } from '../support/until.ts';

const west = 'West Europe';

/** Counts the files that a data center receives, and copies iModels into it. */
class Observer {
  readonly server: TestServer;
  #files = 0;

  constructor(server: TestServer) {
    this.server = server;
    const store = server.services.blobs.stores.ofDataCenter(west);
    const copyFrom = store.copyFrom?.bind(store);
    const put = store.put.bind(store);
    store.put = (...call) => {
      this.#files++;
      return put(...call);
    };
    if (copyFrom !== undefined)
      Object.assign(store, {
        copyFrom: async (...call: Parameters<typeof copyFrom>) => {
          const copied = await copyFrom(...call);
          if (copied !== undefined) this.#files++;
          return copied;
        },
      });
  }

  /** Clones an iModel as a user into the data center `west`. @returns the number of files that were copied */
  async clone(sourceId: string, who: PersonName, iTwinId: string): Promise<number> {
    const before = this.#files;
    const api = await this.server.as(who);
    const { status, headers, body } = await api.post(`/imodels/${sourceId}/clone`, { iTwinId, name: randomUUID() });
    assert.equal(status, 202, JSON.stringify(body));
    const operation = `/imodels/${(headers.get('location') ?? '').slice(-36)}/operations/create`;
    const state = await until(
      'the end of the copy',
      async () => {
        const { createOperation } = (await api.get(operation)).body as { createOperation: { state: string } };
        return createOperation.state === 'scheduled' ? undefined : createOperation.state;
      },
      120_000,
    );
    assert.equal(state, 'successful');
    return this.#files - before;
  }
}

async function withObserver(
  setup: Setup,
  config: ConfigInput,
  work: (observer: Observer) => Promise<void>,
): Promise<void> {
  const server = await bootServer(setup, { dataCenters: { [west]: otherStore(setup) }, ...config });
  try {
    await work(new Observer(server));
  } finally {
    await endServer(server);
  }
}

for (const setup of setups)
  describe(`a copy into another data center on ${setup.engine} and ${setup.store}`, () => {
    test(
      'takes as long as if no other organization had the file, and shares within its own organization',
      { timeout: 240_000 },
      async () => {
        await withObserver(setup, {}, async (observer) => {
          const { server } = observer;
          const { id } = await makeIModel(await official(server), await server.iTwin(), { changesets: 3 });
          // The consultant, a member of both organizations, copies the same files into the other one.
          const alone = await observer.clone(id, 'consultant', await server.iTwin('eve', randomUUID(), west));
          assert.ok(alone >= 3);
          const mine = await server.iTwin('olivia', randomUUID(), west);
          assert.equal(await observer.clone(id, 'olivia', mine), alone);
          assert.equal(await observer.clone(id, 'olivia', mine), 0);
          assert.equal(await observer.clone(id, 'olivia', await server.iTwin('olivia', randomUUID(), west)), 0);
        });
      },
    );

    test('shares between all organizations where the operator allows it', { timeout: 240_000 }, async () => {
      await withObserver(setup, { transfers: { share: 'store' } }, async (observer) => {
        const { server } = observer;
        const { id } = await makeIModel(await official(server), await server.iTwin(), { changesets: 3 });
        assert.ok((await observer.clone(id, 'consultant', await server.iTwin('eve', randomUUID(), west))) >= 3);
        assert.equal(await observer.clone(id, 'olivia', await server.iTwin('olivia', randomUUID(), west)), 0);
      });
    });
  });

test(
  'takes as long with checkpoints as if no other organization had them',
  { skip: isITwinJsInstalled() ? false : 'iTwin.js is not installed', timeout: 240_000 },
  async () => {
    await withObserver(
      { engine: 'sqlite', store: 'files' },
      { checkpoints: { generate: 'auto', delaySeconds: 0 } },
      async (observer) => {
        const { server } = observer;
        const { client, authorization } = await official(server);
        const id = await pushSample({ client, authorization }, await server.iTwin(), 'sample');
        await client.namedVersions.create({
          authorization,
          iModelId: id,
          namedVersionProperties: {
            name: 'version',
            changesetId: (await client.changesets.getSingle({ authorization, iModelId: id, changesetIndex: 2 })).id,
          },
        });
        await until(
          'the checkpoint',
          async () =>
            (await client.checkpoints.getSingle({ authorization, iModelId: id, changesetIndex: 2 })).state ===
            CheckpointState.Successful
              ? true
              : undefined,
          120_000,
        );
        const alone = await observer.clone(id, 'consultant', await server.iTwin('eve', randomUUID(), west));
        const mine = await server.iTwin('olivia', randomUUID(), west);
        assert.equal(await observer.clone(id, 'olivia', mine), alone);
        assert.equal(await observer.clone(id, 'olivia', mine), 0);
      },
    );
  },
);
