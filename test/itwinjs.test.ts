import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { isITwinJsInstalled } from '../apps/server/src/checkpoints/itwinjs/workerProcess.ts';
import { makeIModel } from './support/clients.ts';
import { onEachDatabase } from './support/suite.ts';

const skip = isITwinJsInstalled() ? false : 'iTwin.js is not installed';

onEachDatabase('@offshoot/itwinjs', {}, (context) => {
  test('the example program opens a checkpoint, pushes a change and releases its briefcase', { skip }, async () => {
    const made = await makeIModel(context.olivia, context.iTwinId);
    const program = fileURLToPath(new URL('../packages/itwinjs/example/main.ts', import.meta.url));
    const token = await context.server.token('olivia');
    const output = await new Promise<string>((resolve, reject) => {
      execFile(
        process.execPath,
        ['--conditions=offshoot-source', program, context.server.origin, token, context.iTwinId, made.id],
        (error, stdout, stderr) => (error === null ? resolve(stdout) : reject(new Error(`${stdout}${stderr}`))),
      );
    });
    assert.match(output, /^\S.*: 3 elements in the baseline$/m);
    assert.match(output, /^pushed changeset 1: [0-9a-f]{40}$/m);
    const { changesets } = (await context.api.get(`/imodels/${made.id}/changesets`)).body as {
      changesets: { description: string }[];
    };
    assert.deepEqual(
      changesets.map(({ description }) => description),
      ['a subject'],
    );
    const { briefcases } = (await context.api.get(`/imodels/${made.id}/briefcases`)).body as { briefcases: unknown[] };
    assert.deepEqual(briefcases, []);
  });
});
