import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { isITwinJsInstalled } from '../apps/server/src/checkpoints/itwinjs/workerProcess.ts';
import type * as Scenario from './support/scenario.ts';
import { workFolder } from './support/clients.ts';
import { otherStore } from './support/server.ts';
import { onEachDatabase, onEachStore } from './support/suite.ts';
import { until } from './support/until.ts';

/** iTwin.js is optional: without its native library nothing can open checkpoints. */
const scenario: typeof Scenario | undefined = isITwinJsInstalled() ? await import('./support/scenario.ts') : undefined;

const config = {
  checkpoints: { generate: 'auto' as const, delaySeconds: 0.2 },
  collector: { intervalSeconds: 0.2, graceSeconds: 0 },
};

onEachDatabase('Checkpoints', config, (context) => {
  async function run(...parts: Scenario.ScenarioInput['part'][]): Promise<void> {
    const work = workFolder();
    try {
      const input = {
        origin: context.server.origin,
        token: await context.server.token('olivia'),
        iTwinId: await context.server.iTwin(),
        otherITwinId: await context.server.iTwin(),
        notes: path.join(work.path, 'notes.json'),
      };
      // A separate folder for each, so that no cache is shared.
      for (const part of parts) await scenario?.runScenario({ ...input, part, folder: path.join(work.path, part) });
    } finally {
      work.remove();
    }
  }
  const skip = scenario === undefined ? 'iTwin.js is not installed' : false;

  test(
    'open clones in iTwin.js with the data of their source, independent of it and after its deletion',
    { skip },
    () => run('clone', 'openAgain'),
  );
  test(
    'branches of every kind receive changes from their main iModel and return theirs, with provenance and locks',
    { skip },
    () => run('branches'),
  );
  test('elements inserted after imported and mirrored changesets have unique ids and survive the pull', { skip }, () =>
    run('imports'),
  );
  test('open new, forked and templated iModels in iTwin.js with all the data they were made from', { skip }, () =>
    run('derive'),
  );
});

const west = 'West Europe';

onEachStore(
  'A clone in another data center',
  (setup) => ({ ...config, dataCenters: { [west]: otherStore(setup) }, transfers: { firstRetrySeconds: 1000 } }),
  (context) => {
    const skip = scenario === undefined ? 'iTwin.js is not installed' : false;

    test(
      'opens in iTwin.js as soon as it is initialized, while its other checkpoints are scheduled',
      { skip },
      async () => {
        const work = workFolder();
        try {
          const notes = path.join(work.path, 'notes.json');
          const input = {
            origin: context.server.origin,
            token: await context.server.token('olivia'),
            iTwinId: context.iTwinId,
            otherITwinId: context.iTwinId,
            notes,
          };
          await scenario?.runScenario({ ...input, part: 'source', folder: path.join(work.path, 'source') });
          const found = JSON.parse(readFileSync(notes, 'utf8')) as { sourceId: string; clones: object[] };

          const { blobs, database } = context.server.services;
          const far = await context.server.iTwin('olivia', undefined, west);
          const accepted = await context.api.post(`/imodels/${found.sourceId}/clone`, {
            iTwinId: far,
            name: randomUUID(),
          });
          const id = (accepted.headers.get('location') ?? '').slice(-36);
          const stateOf = async () =>
            (await database.db.selectFrom('imodel').select('state').where('id', '=', id).executeTakeFirst())?.state;
          // From now on the store accepts no writes, so nothing that is copied later can help.
          const store = blobs.stores.ofDataCenter(west);
          for (const name of ['put', 'copyFrom'] as const) {
            const real = store[name]?.bind(store) as ((...given: unknown[]) => Promise<unknown>) | undefined;
            const guarded = async (...given: unknown[]): Promise<unknown> => {
              if ((await stateOf()) === 'initialized') throw new Error('the store is away');
              return real?.(...given);
            };
            if (real !== undefined) Object.assign(store, { [name]: guarded });
          }
          await until('the initialized clone', async () => ((await stateOf()) === 'initialized' ? true : undefined));
          writeFileSync(notes, JSON.stringify({ ...found, clones: [{ id, iTwinId: far, index: 2 }] }));
          // A push needs the store again.
          await until(
            'the failed attempt',
            async () =>
              (await database.db.selectFrom('job').select('last_error').where('subject_id', '=', id).executeTakeFirst())
                ?.last_error ?? undefined,
          );
          for (const name of ['put', 'copyFrom']) Reflect.deleteProperty(store, name);
          await scenario?.runScenario({ ...input, part: 'openCopy', folder: path.join(work.path, 'copy') });
          assert.equal(
            ((await context.api.get(`/imodels/${id}/operations/create`)).body as { createOperation: { state: string } })
              .createOperation.state,
            'scheduled',
          );
        } finally {
          work.remove();
        }
      },
    );
  },
);
