import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { isITwinJsInstalled } from '../apps/server/src/checkpoints/itwinjs/workerProcess.ts';
import type { ConfigInput } from '../apps/server/src/config.ts';
import { pushSample } from '../scripts/sample.ts';
import { official } from './support/clients.ts';
import { endServer, engines, Installation, type TestServer } from './support/server.ts';
import { until } from './support/until.ts';

const skip = isITwinJsInstalled() ? false : 'iTwin.js is not installed';
const checkpoints = { generate: 'auto' as const, delaySeconds: 0, firstRetrySeconds: 0 };
const drawn = { checkpoints, graphics: { enabled: true } } satisfies ConfigInput;
const notDrawn = { checkpoints, graphics: { enabled: false } } satisfies ConfigInput;
/** Longest time for a checkpoint or a drawing, milliseconds. */
const madeMs = 60_000;

for (const engine of engines) {
  describe(`Checkpoints that were made while nothing was drawn, on ${engine}`, { skip }, () => {
    let installation: Installation;
    let server: TestServer | undefined;
    let sample: string;
    let clone: string;

    const restart = async (config: ConfigInput): Promise<TestServer> => {
      await server?.running.close();
      return (server = await installation.start(config));
    };
    const graphicsOf = async (on: TestServer, id: string, index: number) => {
      const { body } = await (await on.as('olivia')).get(`/imodels/${id}/changesets/${index}/graphics`);
      return (body as { graphics: { state: string; error: { message: string } | null } }).graphics;
    };
    const rows = async (on: TestServer): Promise<number> =>
      (await on.services.database.db.selectFrom('graphics').select('id').execute()).length;
    const isDone = (on: TestServer): Promise<true> =>
      until(
        'the end of the look',
        async () => {
          const found = await on.services.database.db
            .selectFrom('secret')
            .select('name')
            .where('name', '=', 'graphics-caught-up')
            .executeTakeFirst();
          return found === undefined ? undefined : true;
        },
        madeMs,
      );

    before(async () => {
      installation = await Installation.create(engine);
      const on = await restart(notDrawn);
      const iTwinId = await on.iTwin();
      sample = await pushSample(await official(on), iTwinId, 'Sample');
      const api = await on.as('olivia');
      for (const index of [1, 2]) {
        await api.put(`/imodels/${sample}/changesets/${index}/checkpoint`, {});
        await until(
          'the checkpoint',
          async () => {
            const { body } = await api.get(`/imodels/${sample}/changesets/${index}/checkpoint`);
            return (body as { checkpoint: { state: string } }).checkpoint.state === 'successful' ? true : undefined;
          },
          madeMs,
        );
      }
      const answer = await api.post(`/imodels/${sample}/clone`, { iTwinId, name: 'Clone' });
      clone = (answer.headers.get('location') ?? '').slice(-36);
    });
    after(async () => {
      if (server !== undefined) await endServer(server);
    });

    test('are drawn when drawing is switched on: the newest of each iModel, once for its clones', async () => {
      assert.equal((await graphicsOf(server as TestServer, sample, 2)).state, 'none');
      const on = await restart(drawn);
      await until(
        'the drawing',
        async () => ((await graphicsOf(on, sample, 2)).state === 'successful' ? true : undefined),
        madeMs,
      );
      assert.equal((await graphicsOf(on, clone, 2)).state, 'successful');
      await isDone(on);
      assert.equal((await graphicsOf(on, sample, 1)).state, 'none');
      assert.equal(await rows(on), 1);
    });

    test('are looked for once, and again after a time without drawing', async () => {
      const { database } = (await restart(drawn)).services;
      // As if it had been made while nothing was drawn, which does not happen while drawing is on.
      await database.db.deleteFrom('graphics_file').execute();
      await database.db.deleteFrom('graphics').execute();
      const again = await restart(drawn);
      await isDone(again);
      assert.equal(await rows(again), 0);
      const off = await restart(notDrawn);
      await until('no mark', async () => {
        const left = await off.services.database.db
          .selectFrom('secret')
          .select('name')
          .where('name', '=', 'graphics-caught-up')
          .executeTakeFirst();
        return left === undefined ? true : undefined;
      });
      const on = await restart(drawn);
      await until(
        'the drawing',
        async () => ((await graphicsOf(on, sample, 2)).state === 'successful' ? true : undefined),
        madeMs,
      );
    });

    test('are not drawn with an iTwin.js service, and the answer says why', async () => {
      const on = await restart({
        checkpoints: {
          ...checkpoints,
          service: { url: 'http://127.0.0.1:9', key: 'a key that has at least 32 characters' },
        },
        graphics: { enabled: true },
      });
      const { state, error } = await graphicsOf(on, sample, 1);
      assert.deepEqual(
        [state, error?.message],
        ['none', 'This installation draws no iModels: its iTwin.js service makes checkpoints only.'],
      );
    });
  });
}
