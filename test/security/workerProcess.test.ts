/** The process that makes checkpoints, if it cannot be started or is no longer needed: nobody waits for it. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, describe, test } from 'node:test';
import { IsolationError, type Isolation } from '../../apps/server/src/checkpoints/itwinjs/isolation.ts';
import type { WorkRequest } from '../../apps/server/src/checkpoints/itwinjs/worker.ts';
import { WorkerProcess } from '../../apps/server/src/checkpoints/itwinjs/workerProcess.ts';
import { FinalError, PublicError } from '../../apps/server/src/operations/reasons.ts';

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

  test('fails with a final error, and a reason for users, where the required isolation is not available', async () => {
    await assert.rejects(
      work(Promise.reject(new IsolationError('process', 'namespaces'))),
      (error) =>
        error instanceof FinalError && !/bubblewrap|'/.test(error.message) && error.cause instanceof IsolationError,
    );
  });
});
