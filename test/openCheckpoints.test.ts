/** The limit of open checkpoints of a view back end. */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { describe, test, type TestContext } from 'node:test';
import { isITwinJsInstalled } from '../apps/server/src/checkpoints/itwinjs/workerProcess.ts';
import type { ViewCheckpoint } from '../apps/server/src/viewer/protocol.ts';

const skip = isITwinJsInstalled() ? false : 'iTwin.js is not installed';
const { signal } = new AbortController();

function checkpoint(): ViewCheckpoint {
  const [iTwinId, iModelId] = [randomUUID(), randomUUID()];
  const names = { iTwinId, iModelId, changesetId: '', changesetIndex: 0 };
  return { ...names, baseUri: '', container: iModelId, database: 'BASELINE.bim', token: '' };
}

/** Checkpoints of which two may be open, and the ids of the iModels that are; nothing is read. */
async function twoOpen(t: TestContext) {
  const { SnapshotDb } = await import('@itwin/core-backend');
  const { OpenCheckpoints, CheckpointsInUseError } =
    await import('../apps/server/src/viewer/worker/openCheckpoints.ts');
  const open = new Set<string>();
  let mostOpen = 0;
  const faulty = new Set<string>();
  t.mock.method(SnapshotDb, 'openCheckpointFromRpc', async ({ iModelId }: ViewCheckpoint) => {
    if (faulty.has(iModelId)) throw new Error('damaged');
    open.add(iModelId);
    mostOpen = Math.max(mostOpen, open.size);
  });
  t.mock.method(SnapshotDb, 'tryFindByKey', (key: string) => ({ close: () => open.delete(key.slice(0, -1)) }));
  const settings = { idleMs: 600_000, maxCheckpoints: 2 };
  const checkpoints = new OpenCheckpoints(settings, () => undefined);
  /** Reads a checkpoint until `end` is called. `began` tells that it is open. */
  const reading = (of: ViewCheckpoint, until = signal) => {
    const [began, ended] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const done = checkpoints.use(of, until, () => {
      began.resolve();
      return ended.promise;
    });
    done.catch(began.reject);
    began.promise.catch(() => undefined);
    return { began: began.promise, done, end: ended.resolve };
  };
  return { open, faulty, mostOpen: () => mostOpen, reading, CheckpointsInUseError };
}

describe('A view back end whose open checkpoints are all in use', { skip }, () => {
  test('opens another one as soon as one may be closed, and never more than it may', async (t) => {
    const { open, mostOpen, reading } = await twoOpen(t);
    const [a, b, c, d] = [checkpoint(), checkpoint(), checkpoint(), checkpoint()];
    const [readA, readB] = [reading(a), reading(b)];
    await Promise.all([readA.began, readB.began]);
    const [readC, alsoC, readD, alsoB] = [reading(c), reading(c), reading(d), reading(b)];
    // What is open needs no room.
    await alsoB.began;
    readA.end();
    // The first that waited, and whoever wants the same.
    await Promise.all([readA.done, readC.began, alsoC.began]);
    assert.deepEqual([...open], [b.iModelId, c.iModelId]);
    for (const each of [readB, alsoB]) each.end();
    await readD.began;
    assert.deepEqual([...open], [c.iModelId, d.iModelId]);
    for (const each of [readC, alsoC, readD]) each.end();
    await Promise.all([readB, alsoB, readC, alsoC, readD].map(({ done }) => done));
    assert.equal(mostOpen(), 2);
  });

  test('opens another one when one of them cannot be opened', async (t) => {
    const { faulty, reading } = await twoOpen(t);
    const [a, damaged, c] = [checkpoint(), checkpoint(), checkpoint()];
    faulty.add(damaged.iModelId);
    const readA = reading(a);
    await readA.began;
    const [failing, readC] = [reading(damaged), reading(c)];
    await assert.rejects(failing.done, /damaged/);
    await readC.began;
    for (const each of [readA, readC]) each.end();
    await Promise.all([readA.done, readC.done]);
  });

  test('refuses a request that has waited 10 s, or whose client has gone, or behind 200 others', async (t) => {
    const { open, reading, CheckpointsInUseError } = await twoOpen(t);
    const reads = [reading(checkpoint()), reading(checkpoint())];
    await Promise.all(reads.map(({ began }) => began));
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const client = new AbortController();
    const gone = reading(checkpoint(), client.signal);
    client.abort();
    await assert.rejects(gone.done, CheckpointsInUseError);
    const waiting = Array.from({ length: 200 }, () => reading(checkpoint()));
    await assert.rejects(reading(checkpoint()).done, CheckpointsInUseError);
    const refused = Promise.all(waiting.map(({ done }) => assert.rejects(done, CheckpointsInUseError)));
    t.mock.timers.tick(10_000);
    await refused;
    assert.equal(open.size, 2);
    for (const each of reads) each.end();
    await Promise.all(reads.map(({ done }) => done));
    const next = reading(checkpoint());
    await next.began;
    next.end();
    await next.done;
  });
});
