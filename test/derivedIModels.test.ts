import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test } from 'node:test';
import { raiseBriefcaseCounter } from '../apps/server/src/briefcases/counter.ts';
import type { WireError } from './support/api.ts';
import { all, makeIModel, pushMore, type MadeIModel } from './support/clients.ts';
import { otherStore } from './support/server.ts';
import { onEachDatabase } from './support/suite.ts';

const west = 'West Europe';

/**
 * What a derived iModel (clone, fork, iModel from a template) continues of its source: its history goes on, so whatever must
 * not be repeated within a history goes on too. The server has no iTwin.js here; `realModel.test.ts` does the same with it.
 */
onEachDatabase('Derived iModels continue their source', (setup) => ({ dataCenters: { [west]: otherStore(setup) } }), (context) => {
  const as = () => ({ authorization: context.olivia.authorization });
  const acquire = async (iModelId: string): Promise<number> => (await context.olivia.client.briefcases.acquire({ ...as(), iModelId })).briefcaseId;
  const target = async (far: boolean): Promise<string> => (far ? context.server.iTwin('olivia', undefined, west) : context.iTwinId);

  type Derive = (sourceId: string, iTwinId: string) => Promise<{ id: string }>;
  const named = (iTwinId: string) => ({ iTwinId, name: randomUUID() });
  const kinds: Record<string, Derive> = {
    'a clone': (iModelId, iTwinId) => context.olivia.client.iModels.clone({ ...as(), iModelId, iModelProperties: named(iTwinId) }),
    'a clone up to an earlier changeset': (iModelId, iTwinId) => context.olivia.client.iModels.clone({ ...as(), iModelId, iModelProperties: { ...named(iTwinId), changesetIndex: 1 } }),
    'a clone of the baseline': (iModelId, iTwinId) => context.olivia.client.iModels.clone({ ...as(), iModelId, iModelProperties: { ...named(iTwinId), changesetIndex: 0 } }),
    'a clone of a clone': async (iModelId, iTwinId) => {
      const first = await context.olivia.client.iModels.clone({ ...as(), iModelId, iModelProperties: named(context.iTwinId) });
      return context.olivia.client.iModels.clone({ ...as(), iModelId: first.id, iModelProperties: named(iTwinId) });
    },
    'a fork with history': (iModelId, iTwinId) => context.olivia.client.iModels.fork({ ...as(), iModelId, iModelProperties: { ...named(iTwinId), preserveHistory: true } }),
    'an iModel from a template': (iModelId, iTwinId) => context.olivia.client.iModels.createFromTemplate({ ...as(), iModelProperties: { ...named(iTwinId), template: { iModelId } } }),
  };

  for (const [kind, derive] of Object.entries(kinds))
    for (const far of [false, true])
      test(`${kind}${far ? ' in another data center' : ''} hands out no briefcase id that its source had handed out`, async () => {
        const source = await makeIModel(context.olivia, context.iTwinId, { changesets: 1 });
        // Pushes by three briefcases, of which two are released; a fourth has pushed nothing yet.
        for (let n = 0; n < 2; n++) {
          source.briefcaseId = 0;
          await pushMore(context.olivia, source, 1);
          await context.olivia.client.briefcases.release({ ...as(), iModelId: source.id, briefcaseId: source.briefcaseId });
        }
        assert.equal(await acquire(source.id), 5);
        const { id } = await derive(source.id, await target(far));
        for (const briefcaseId of [2, 3, 4, 5]) {
          const { status, body } = await context.api.get(`/imodels/${id}/briefcases/${briefcaseId}`);
          assert.deepEqual([status, (body as WireError).error.code], [404, 'BriefcaseNotFound']);
        }
        assert.deepEqual(await all(context.olivia.client.briefcases.getMinimalList({ ...as(), iModelId: id })), []);
        assert.deepEqual([await acquire(id), await acquire(id)], [6, 7]);
        // They go apart from there.
        assert.equal(await acquire(source.id), 6);
      });

  test('a changeset that is pushed to a clone is later than those before it, whatever the clocks said', async () => {
    const source = await makeIModel(context.olivia, context.iTwinId, { changesets: 1 });
    const { db } = context.server.services.database;
    // As if the source had been written by a server whose clock is an hour ahead.
    await db.updateTable('imodel').set({ clock: Date.now() + 3_600_000 }).where('id', '=', source.id).execute();
    await pushMore(context.olivia, source, 2);
    const clone = await context.olivia.client.iModels.clone({ ...as(), iModelId: source.id, iModelProperties: { ...named(context.iTwinId), changesetIndex: 2 } });
    const goesOn: MadeIModel = { ...source, id: clone.id, briefcaseId: 0, changesets: source.changesets.slice(0, 2) };
    await pushMore(context.olivia, goesOn, 1);
    const times = (await all(context.olivia.client.changesets.getMinimalList({ ...as(), iModelId: clone.id }))).map(({ pushDateTime }) => Date.parse(pushDateTime as never));
    assert.equal(times.length, 3);
    assert.deepEqual(times, [...new Set(times)].sort((a, b) => a - b));
  });

  test('briefcase ids end where those that iTwin.js reserves begin', async () => {
    const { id } = await makeIModel(context.olivia, context.iTwinId);
    const { db } = context.server.services.database;
    const raise = (atLeast: number) => db.transaction().execute((tx) => raiseBriefcaseCounter(tx, id, atLeast));
    await raise(100);
    assert.equal(await acquire(id), 100);
    await raise(50);
    assert.equal(await acquire(id), 101);
    await raise(2 ** 24 - 11);
    assert.equal(await acquire(id), 2 ** 24 - 11);
    await raise(2 ** 40);
    const { status, body } = await context.api.post(`/imodels/${id}/briefcases`, {});
    assert.deepEqual([status, (body as WireError).error.code, (body as WireError).error.details?.[0]?.code], [422, 'InvalidiModelsRequest', 'ResourceQuotaExceeded']);
  });
});
