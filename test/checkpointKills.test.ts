import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { readdirSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { CheckpointState } from '@itwin/imodels-client-management';
import { isITwinJsInstalled } from '../apps/server/src/checkpoints/itwinjs/workerProcess.ts';
import { pushSample, sampleChangesets } from '../scripts/sample.ts';
import { times } from './support/effort.ts';
import { makeIModel } from './support/clients.ts';
import { identityIn } from './support/identity.ts';
import { onEachDatabase, onOneDatabase } from './support/suite.ts';
import { until } from './support/until.ts';

const skip = isITwinJsInstalled() ? false : 'iTwin.js is not installed';
/** Longest lifetime of a process before it is killed: more than starting it and making a checkpoint take together. */
const longestLifeMs = 700;

onEachDatabase(
  'When the iTwin.js process is killed',
  { checkpoints: { generate: 'auto', delaySeconds: 0, attempts: 100, firstRetrySeconds: 0 } },
  (context) => {
    const kills = context.engine === 'sqlite' ? times(20, 100) : times(5, 20);

    test(
      `${kills} times at random, every checkpoint succeeds and none stays scheduled`,
      { skip, timeout: 280_000 },
      async () => {
        const { services } = context.server;
        const { client, authorization } = context.olivia;
        const iModels: string[] = [];
        const more = async (): Promise<void> => {
          // A clone is available at once; creating it from the baseline through the client would wait for the killed process.
          const iModelId =
            iModels[0] === undefined
              ? await pushSample(context.olivia, context.iTwinId, randomUUID())
              : await pushOnto(iModels[0]);
          iModels.push(iModelId);
          for (const { id } of sampleChangesets())
            await client.namedVersions.create({
              authorization,
              iModelId,
              namedVersionProperties: { name: randomUUID(), changesetId: id },
            });
        };
        /** An iModel with different changesets: its checkpoints differ from those of the first one. */
        const pushOnto = async (of: string): Promise<string> => {
          const { id: iModelId } = await client.iModels.clone({
            authorization,
            iModelId: of,
            iModelProperties: { iTwinId: context.iTwinId, name: randomUUID(), changesetIndex: 0 },
          });
          const { briefcaseId } = await client.briefcases.acquire({ authorization, iModelId });
          for (const { id, parentId, containingChanges, file } of sampleChangesets())
            await client.changesets.create({
              authorization,
              iModelId,
              changesetProperties: { id, parentId, containingChanges, briefcaseId, filePath: file },
            });
          return iModelId;
        };
        const waiting = async (): Promise<number> =>
          (await services.database.db.selectFrom('checkpoint').select('id').where('state', '=', 'scheduled').execute())
            .length;

        await more();
        for (let killed = 0; killed < kills;) {
          if ((await waiting()) < 2) await more();
          const pid = services.workers?.pids[0];
          await pause(pid === undefined ? 5 : Math.random() * longestLifeMs);
          if (pid === undefined || services.workers?.pids[0] !== pid) continue;
          process.kill(pid, 'SIGKILL');
          killed++;
        }

        await until('the end of all jobs', async () => ((await waiting()) === 0 ? true : undefined), 60_000);
        for (const iModelId of iModels) {
          for (let index = 1; index <= sampleChangesets().length; index++) {
            const checkpoint = await client.checkpoints.getSingle({ authorization, iModelId, changesetIndex: index });
            assert.equal(checkpoint.state, 'successful', `${iModelId} at ${index}`);
            const bytes = Buffer.from(await (await fetch(checkpoint._links.download?.href ?? '')).arrayBuffer());
            assert.deepEqual(identityIn(bytes), { iModelId, iTwinId: context.iTwinId });
          }
        }
        assert.deepEqual(
          await services.database.db.selectFrom('job').select('id').where('kind', '=', 'checkpoint').execute(),
          [],
        );
        const work = path.join(context.server.installation.dataDir, 'work');
        const [own = ''] = readdirSync(work);
        const left = readdirSync(path.join(work, own)).flatMap((slot) => readdirSync(path.join(work, own, slot)));
        assert.deepEqual(
          left.filter((name) => name !== 'itwinjs'),
          [],
          'no file in work is left behind',
        );
      },
    );
  },
);

onOneDatabase(
  'When the iTwin.js process hangs',
  { checkpoints: { generate: 'auto', delaySeconds: 0, silenceSeconds: 5, firstRetrySeconds: 0 } },
  (context) => {
    test(
      'it is killed, its checkpoint fails with the reason, and the next process makes the next one',
      { skip },
      async () => {
        const { client, authorization } = context.olivia;
        const iModelId = await pushSample(context.olivia, context.iTwinId, randomUUID());
        const [first, second] = sampleChangesets();
        const pid = await until('the process', () => context.server.services.workers?.pids[0]);
        process.kill(pid, 'SIGSTOP');
        const ended = async (index: number): Promise<{ state: string; failureReason: string }> =>
          until(`the end of the checkpoint at ${index}`, async () => {
            const { checkpoint } = (await context.api.get(`/imodels/${iModelId}/changesets/${index}/checkpoint`))
              .body as { checkpoint: { state: string; failureReason: string } };
            return ['successful', 'failed'].includes(checkpoint.state) ? checkpoint : undefined;
          });
        await client.namedVersions.create({
          authorization,
          iModelId,
          namedVersionProperties: { name: 'stopped', changesetId: first?.id ?? '' },
        });
        // Another attempt on the same files would block the slot again.
        assert.match((await ended(1)).failureReason, /^Making the file showed no progress for 5 s and was stopped\.$/);
        await client.namedVersions.create({
          authorization,
          iModelId,
          namedVersionProperties: { name: 'next', changesetId: second?.id ?? '' },
        });
        assert.equal((await ended(2)).state, CheckpointState.Successful);
        assert.notEqual(context.server.services.workers?.pids[0], pid);
      },
    );
  },
);

onOneDatabase(
  'When the iTwin.js process takes too much memory',
  { checkpoints: { generate: 'auto', delaySeconds: 0, memoryMiB: 128, attempts: 2, firstRetrySeconds: 0 } },
  (context) => {
    test(
      'it is killed, and the checkpoint fails with the reason',
      { skip: process.platform === 'linux' ? skip : 'memory is told on Linux only' },
      async () => {
        const made = await makeIModel(context.olivia, context.iTwinId, { changesets: 1 });
        const { client, authorization } = context.olivia;
        await client.namedVersions.create({
          authorization,
          iModelId: made.id,
          namedVersionProperties: { name: 'large', changesetId: made.changesets[0]?.id ?? '' },
        });
        const { failureReason } = await until('the failure', async () => {
          const { checkpoint } = (await context.api.get(`/imodels/${made.id}/changesets/1/checkpoint`)).body as {
            checkpoint: { state: string; failureReason: string };
          };
          return checkpoint.state === 'failed' ? checkpoint : undefined;
        });
        assert.match(failureReason, /^Making the file took more than 128 MiB of memory and was stopped\.$/);
      },
    );
  },
);
