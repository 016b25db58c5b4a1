import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startAll, type Stoppable } from './support/services.ts';

test('services that started are stopped when another service of the run fails to start', async () => {
  const stopped: string[] = [];
  const starting = (name: string, ready: Promise<unknown>) => async (): Promise<Stoppable> => {
    await ready;
    return { stop: async () => void stopped.push(name) };
  };
  let startLate = (): void => undefined;
  const late = new Promise<void>((resolve) => (startLate = resolve));
  const started = startAll(
    starting('early', Promise.resolve()),
    () => Promise.reject(new Error('no port')),
    starting('late', late),
  );
  startLate();
  await assert.rejects(started, /no port/);
  assert.deepEqual(stopped.sort(), ['early', 'late']);
});
