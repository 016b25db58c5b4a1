import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { isITwinJsInstalled } from '../apps/server/src/checkpoints/itwinjs/workerProcess.ts';
import { pushSample, sampleBaseline, sampleChangesets } from '../scripts/sample.ts';
import type * as RealModel from '../scripts/realModel.ts';
import { workFolder } from './support/clients.ts';
import { identityIn } from './support/identity.ts';
import { onEachStore } from './support/suite.ts';

/** iTwin.js is optional: without its native library, files are compared by hash only. */
const iTwinJs: typeof RealModel | undefined = isITwinJsInstalled()
  ? await import('../scripts/realModel.ts')
  : undefined;

const native = workFolder();
let models: RealModel.RealModels | undefined;
before(async () => {
  models = await iTwinJs?.RealModels.start(native.path, 'http://127.0.0.1:9', 'no token is needed to compute ids');
});
after(async () => {
  await models?.stop();
  native.remove();
});

onEachStore('A real iModel', { checkpoints: { generate: 'auto' } }, (context) => {
  test('is cloned with every file as it was pushed, and the clone survives the deletion of its source', async () => {
    const { client, authorization } = context.olivia;
    const sourceId = await pushSample(context.olivia, context.iTwinId, 'Sample');
    const target = await context.server.iTwin();
    const part = await client.iModels.clone({
      authorization,
      iModelId: sourceId,
      iModelProperties: { iTwinId: target, name: 'part', changesetIndex: 2 },
    });
    const whole = await client.iModels.clone({
      authorization,
      iModelId: sourceId,
      iModelProperties: { iTwinId: target },
    });
    await client.iModels.delete({ authorization, iModelId: sourceId });
    await context.server.services.collector.runOnce();

    const pushed = sampleChangesets();
    const work = workFolder();
    try {
      for (const [clone, count] of [
        [part, 2],
        [whole, pushed.length],
      ] as const) {
        const files = await client.changesets.downloadList({
          authorization,
          iModelId: clone.id,
          targetDirectoryPath: path.join(work.path, clone.id),
        });
        assert.deepEqual(
          files.map(({ id }) => id),
          pushed.slice(0, count).map(({ id }) => id),
        );
        for (const [n, { id, parentId, filePath, description, containingChanges }] of files.entries()) {
          assert.deepEqual(readFileSync(filePath), readFileSync(pushed[n]?.file ?? ''));
          assert.deepEqual(
            [parentId, description, containingChanges],
            [pushed[n]?.parentId, pushed[n]?.description, pushed[n]?.containingChanges],
          );
          if (iTwinJs !== undefined) assert.equal(iTwinJs.computeChangesetId(parentId, filePath), id);
        }
        const { _links } = await client.baselineFiles.getSingle({ authorization, iModelId: clone.id });
        const bytes = Buffer.from(await (await fetch(_links.download?.href ?? '')).arrayBuffer());
        if (iTwinJs !== undefined) assert.deepEqual(identityIn(bytes), { iModelId: clone.id, iTwinId: target });
        assert.equal(bytes.length, sampleBaseline().length);
      }
    } finally {
      work.remove();
    }
  });
});

test('the demo succeeds', async () => {
  const demo = fileURLToPath(new URL('../scripts/demo.ts', import.meta.url));
  const { code, stdout } = await new Promise<{ code: number | null; stdout: string }>((resolve) => {
    const child = execFile(process.execPath, [demo], (_error, text) => resolve({ code: child.exitCode, stdout: text }));
  });
  assert.equal(code, 0, stdout);
  assert.match(stdout, /All checks passed/);
});
