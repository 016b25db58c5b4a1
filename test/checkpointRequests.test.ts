import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test } from 'node:test';
import { isITwinJsInstalled } from '../apps/server/src/checkpoints/itwinjs/workerProcess.ts';
import { pushSample, sampleChangesets } from '../scripts/sample.ts';
import type { Answer, WireError } from './support/api.ts';
import { makeIModel } from './support/clients.ts';
import { onEachDatabase, onEachStore } from './support/suite.ts';
import { until } from './support/until.ts';

interface Checkpoint {
  changesetIndex: number;
  changesetId: string | null;
  state: string;
  _links: { download: object | null };
}
const address = (iModelId: string, changeset: string | number) =>
  `/imodels/${iModelId}/changesets/${changeset}/checkpoint`;
const checkpointIn = ({ body }: Answer) => (body as { checkpoint: Checkpoint }).checkpoint;
const codeOf = ({ body }: Answer) => (body as WireError).error.code;

onEachDatabase('A request for a checkpoint', { checkpoints: { generate: 'elsewhere' } }, (context) => {
  const scheduled = () =>
    context.server.services.database.db
      .selectFrom('audit')
      .select(['imodel_id', 'detail'])
      .where('action', '=', 'checkpoint.request')
      .execute();

  test('schedules that of any changeset once, by id or index, for the iModel and its clones', async () => {
    const { api } = context;
    const made = await makeIModel(context.olivia, context.iTwinId, { changesets: 3 });
    const id = made.changesets[1]?.id ?? '';
    assert.equal(checkpointIn(await api.get(address(made.id, 2))).state, 'notGenerated');
    for (const changeset of [2, id, 2]) {
      const answer = await api.put(address(made.id, changeset));
      assert.equal(answer.status, 202, JSON.stringify(answer.body));
      const { changesetIndex, changesetId, state, _links } = checkpointIn(answer);
      assert.deepEqual([changesetIndex, changesetId, state, _links.download], [2, id, 'scheduled', null]);
    }
    const clone = await context.olivia.client.iModels.clone({
      authorization: context.olivia.authorization,
      iModelId: made.id,
      iModelProperties: { iTwinId: context.iTwinId, name: randomUUID() },
    });
    assert.equal(checkpointIn(await api.put(address(clone.id, 2))).state, 'scheduled');
    assert.equal(checkpointIn(await api.get(address(made.id, 3))).state, 'notGenerated');
    const jobs = await context.server.services.database.db
      .selectFrom('job')
      .innerJoin('checkpoint', 'checkpoint.id', 'job.subject_id')
      .select('checkpoint.changeset_index')
      .where('job.kind', '=', 'checkpoint')
      .execute();
    assert.deepEqual(
      jobs.map(({ changeset_index }) => changeset_index),
      [2],
    );
    assert.deepEqual(
      (await scheduled()).map(({ imodel_id, detail }) => [imodel_id, JSON.parse(detail) as unknown]),
      [[made.id, { index: 2 }]],
    );
  });

  test('schedules a failed one again, and leaves one that is available as it is', async () => {
    const { db } = context.server.services.database;
    const made = await makeIModel(context.olivia, context.iTwinId, { changesets: 1 });
    await context.api.put(address(made.id, 1));
    await db
      .updateTable('checkpoint')
      .set({ state: 'failed', failure_reason: 'tried', finished_at: 1 })
      .where('state', '=', 'scheduled')
      .execute();
    assert.equal(checkpointIn(await context.api.get(address(made.id, 1))).state, 'failed');
    assert.equal(checkpointIn(await context.api.put(address(made.id, 1))).state, 'scheduled');
    const before = (await scheduled()).length;
    const baseline = await context.api.put(address(made.id, 0));
    assert.deepEqual([baseline.status, checkpointIn(baseline).state], [202, 'successful']);
    assert.equal((await scheduled()).length, before);
  });

  test('needs the permission to write, and a changeset that exists', async () => {
    const iTwinId = await context.server.iTwin();
    await context.server.grant(iTwinId, 'max', ['imodels_read']);
    const made = await makeIModel(context.olivia, iTwinId, { changesets: 1 });
    const max = await context.server.as('max');
    assert.equal((await max.get(address(made.id, 1))).status, 200);
    assert.equal(codeOf(await max.put(address(made.id, 1))), 'InsufficientPermissions');
    for (const unknown of ['2', 'a'.repeat(40), 'nonsense'])
      assert.equal(codeOf(await context.api.put(address(made.id, unknown))), 'ChangesetNotFound');
    assert.equal(checkpointIn(await context.api.get(address(made.id, 1))).state, 'notGenerated');
  });
});

onEachDatabase('A request for a checkpoint that no server would make', {}, (context) => {
  test('is refused, unless the checkpoint exists', async () => {
    const made = await makeIModel(context.olivia, context.iTwinId, { changesets: 1 });
    const refused = await context.api.put(address(made.id, 1));
    assert.deepEqual(
      [refused.status, refused.body],
      [409, { error: { code: 'CheckpointsNotMade', message: 'This installation makes no checkpoints.' } }],
    );
    assert.equal(checkpointIn(await context.api.put(address(made.id, 0))).state, 'successful');
  });
});

onEachStore('A requested checkpoint', { checkpoints: { generate: 'auto', delaySeconds: 0 } }, (context) => {
  const skip = isITwinJsInstalled() ? false : 'iTwin.js is not installed';
  test('is made, and can be downloaded', { skip }, async () => {
    const iModelId = await pushSample(context.olivia, context.iTwinId, randomUUID());
    const index = sampleChangesets().length - 1;
    assert.equal(checkpointIn(await context.api.put(address(iModelId, index))).state, 'scheduled');
    const made = await until('the checkpoint', async () => {
      const checkpoint = checkpointIn(await context.api.get(address(iModelId, index)));
      return checkpoint.state === 'scheduled' ? undefined : checkpoint;
    });
    assert.equal(made.state, 'successful');
    assert.notEqual(made._links.download, null);
  });
});
