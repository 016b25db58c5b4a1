import assert from 'node:assert/strict';
import { rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { test, type TestContext } from 'node:test';
import pino from 'pino';
import { BackendLostError } from '../apps/server/src/viewer/backend.ts';
import { BackendProcess } from '../apps/server/src/viewer/backendProcess.ts';
import { workFolder } from './support/clients.ts';
import { Installation } from './support/server.ts';

async function backendIn(folder: string, parent: string): Promise<BackendProcess> {
  const { viewer } = (await Installation.create('sqlite', undefined, parent)).config();
  return new BackendProcess({ folder, slot: 0, viewer, isolation: 'process', log: pino({ level: 'silent' }) });
}

function emptyFolder(t: TestContext): string {
  const work = workFolder();
  t.after(() => work.remove());
  return work.path;
}

const request = { path: '/', body: '', headers: {}, reserve: () => Promise.resolve() };
const signal = new AbortController().signal;

test('a view back end that is stopped while it starts leaves no process behind', async (t) => {
  const folder = emptyFolder(t);
  const backend = await backendIn(path.join(folder, 'work'), folder);
  const calling = assert.rejects(backend.call(request, signal), BackendLostError);
  await backend.stop();
  await calling;
  assert.deepEqual([backend.starts, backend.pid], [0, undefined]);
});

test('a view back end that is stopped while it waits for its next start does not start', async (t) => {
  const folder = emptyFolder(t);
  const occupied = path.join(folder, 'occupied');
  writeFileSync(occupied, '');
  const backend = await backendIn(path.join(occupied, 'work'), folder);
  await assert.rejects(backend.call(request, signal), BackendLostError);
  rmSync(occupied);
  const calling = assert.rejects(backend.call(request, signal), BackendLostError);
  await backend.stop();
  await calling;
  assert.equal(backend.starts, 0);
});
