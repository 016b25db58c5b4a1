/** The process that makes checkpoints, if it cannot be started or is no longer needed: nobody waits for it. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, describe, test } from 'node:test';
import { findIsolation, IsolationError, type Isolation } from '../../apps/server/src/checkpoints/itwinjs/isolation.ts';
import { startTree, treeOf } from '../../apps/server/src/checkpoints/itwinjs/processTree.ts';
import type { WorkRequest } from '../../apps/server/src/checkpoints/itwinjs/worker.ts';
import { WorkerProcess } from '../../apps/server/src/checkpoints/itwinjs/workerProcess.ts';
import { killIfRunning } from '../support/processes.ts';
import { FinalError, PublicError } from '../../apps/server/src/operations/reasons.ts';
import { within } from '../../apps/server/src/operations/within.ts';

describe('Work for an iTwin.js process', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'offshoot-worker-'));
  after(() => rmSync(folder, { recursive: true, force: true }));
  const request: WorkRequest = {
    file: path.join(folder, 'model.bim'),
    changesets: [],
    purpose: 'checkpoint',
    countMissingGuids: false,
  };
  const limits = { memoryBytes: 2 ** 30, silenceMs: 60_000, workMs: 60_000 };
  /** A process whose program does not exist. */
  const absent = (grantAccess: Isolation['grantAccess'] = async () => undefined): Isolation => ({
    level: 'process',
    grantAccess,
    command: () => ({ file: path.join(folder, 'no-such-program'), args: [], options: {} }),
  });
  const work = (isolation: Promise<Isolation>, signal = new AbortController().signal) =>
    new WorkerProcess(folder, limits, isolation).work(request, { signal }, () => undefined);

  test('fails at once when the process cannot be started', { timeout: 20_000 }, async () => {
    await assert.rejects(
      work(Promise.resolve(absent())),
      (error) => error instanceof PublicError && error.message.includes('could not be started'),
    );
  });

  test('does not start when it was aborted while the process was being prepared', { timeout: 20_000 }, async () => {
    const abort = new AbortController();
    const calledOff = new Error('called off');
    await assert.rejects(work(Promise.resolve(absent(async () => abort.abort(calledOff))), abort.signal), calledOff);
  });

  test(
    'leaves no process behind when the process is killed while it is being isolated',
    { timeout: 60_000 },
    async (t) => {
      const isolation = await findIsolation(folder, 'process');
      if (isolation.level !== 'namespaces') return t.skip('there is no bubblewrap');
      const { file, args, options } = isolation.command(path.join(folder, 'no-such-script.ts'), [], true);
      for (let n = 0; n < 20; n++) {
        const child = startTree(file, args, options);
        let tree = treeOf(child);
        // Without a pause: bubblewrap has a child of its own a millisecond or two after its start.
        for (const end = Date.now() + 1000; tree.length < 2 && Date.now() < end;) tree = treeOf(child);
        // As the system does when memory is short.
        process.kill(child.pid as number, 'SIGKILL');
        // After its end and that of all who have its channel.
        const closed = await within(once(child, 'close'), 10_000);
        tree.forEach(killIfRunning);
        assert.ok(closed, `${tree.length} processes in round ${n}`);
      }
    },
  );

  test('fails with a final error, and a reason for users, where the required isolation is not available', async () => {
    await assert.rejects(
      work(Promise.reject(new IsolationError('process', 'namespaces'))),
      (error) =>
        error instanceof FinalError && !/bubblewrap|'/.test(error.message) && error.cause instanceof IsolationError,
    );
  });
});
