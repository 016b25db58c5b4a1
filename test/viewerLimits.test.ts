/** Limits and metrics of the back end for viewers. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isITwinJsInstalled } from '../apps/server/src/checkpoints/itwinjs/workerProcess.ts';
import type { Answer, WireError } from './support/api.ts';
import { makeIModel } from './support/clients.ts';
import { type Context, onOneDatabase } from './support/suite.ts';
import { until } from './support/until.ts';
import { call, cloneOf, makePlant, processOf, read, tileOf, viewerConfig, type Place } from './support/viewerCalls.ts';

const skip = isITwinJsInstalled() ? false : 'iTwin.js is not installed';

/** The values of `/metrics`, by name and labels. */
async function metricsOf({ api }: Context): Promise<{ text: string; value: (name: string) => number }> {
  const text = (await api.get('/metrics')).body as string;
  const values = new Map(
    text
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith('#'))
      .map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ') + 1))]),
  );
  return { text, value: (name) => values.get(name) ?? assert.fail(`there is no ${name}`) };
}

const requests = (status: number): string =>
  `offshoot_request_duration_seconds_count{operation="call-viewer",status="${status}"}`;

onOneDatabase('The metrics', { ...viewerConfig, metrics: true }, (context) => {
  test('count requests of viewers, processes, and tiles that were made or kept, without ids', { skip }, async () => {
    const idle = await metricsOf(context);
    for (const name of ['processes', 'open_checkpoints', 'starts_total', 'made_tiles_total', 'kept_tiles_total'])
      assert.equal(idle.value(`offshoot_viewer_${name}`), 0, name);
    const source: Place = { iTwinId: context.iTwinId, iModelId: await makePlant(context, 20) };
    await tileOf(context, source);
    const clone = await cloneOf(context, source.iModelId);
    await tileOf(context, clone);
    const { text, value } = await until(
      'both checkpoints to be counted',
      async () => {
        const metrics = await metricsOf(context);
        return metrics.value('offshoot_viewer_open_checkpoints') === 2 ? metrics : undefined;
      },
      60_000,
    );
    assert.deepEqual(
      ['processes', 'starts_total', 'made_tiles_total', 'kept_tiles_total'].map((name) =>
        value(`offshoot_viewer_${name}`),
      ),
      [1, 1, 1, 1],
    );
    assert.ok(value('offshoot_viewer_memory_bytes') > 2 ** 20);
    assert.ok(value('offshoot_viewer_kept_tile_bytes') > 0);
    // Three calls for each tile, besides those that were answered with 202.
    assert.ok(value(requests(200)) >= 8);
    for (const { iModelId } of [source, clone]) assert.ok(!text.includes(iModelId));
  });
});

onOneDatabase(
  'A request that takes too long',
  { ...viewerConfig, metrics: true, viewer: { enabled: true, requestSeconds: 4 } },
  (context) => {
    test('is answered with 504, and a process that does not respond is replaced', { skip }, async () => {
      const { id } = await makeIModel(context.olivia, context.iTwinId);
      const place = { iTwinId: context.iTwinId, iModelId: id };
      const ask = (): Promise<Answer> => call(context.api, place, `${read}getConnectionProps`);
      const answered = (): Promise<Answer> =>
        // The first request may take too long on a busy machine, because the process starts with it.
        until(
          'an answer',
          async () => {
            const answer = await ask();
            if (answer.status === 200) return answer;
            assert.ok([503, 504].includes(answer.status), JSON.stringify(answer.body));
            return undefined;
          },
          120_000,
        );
      await answered();
      const backend = processOf(context);
      const { starts } = backend;
      const stopped = new Set<number>();
      const late = await until(
        'a request that takes too long',
        async () => {
          const { pid } = backend;
          if (pid === undefined) await answered();
          else {
            process.kill(pid, 'SIGSTOP');
            stopped.add(pid);
          }
          // On a busy machine the process may already be about to be replaced, for the request that started it.
          const answer = await ask();
          return answer.status === 504 ? answer : undefined;
        },
        120_000,
      );
      assert.deepEqual((late.body as WireError).error, {
        code: 'ViewerTimeout',
        message: 'The view back end did not answer in time.',
      });
      await answered();
      assert.ok(backend.starts > starts);
      assert.ok(!stopped.has(backend.pid ?? 0));
      assert.ok((await metricsOf(context)).value(requests(504)) >= 1);
    });
  },
);
