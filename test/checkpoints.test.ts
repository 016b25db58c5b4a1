import path from 'node:path';
import { test } from 'node:test';
import { isITwinJsInstalled } from '../apps/server/src/checkpoints/workerProcess.ts';
import type * as Scenario from './support/scenario.ts';
import { workFolder } from './support/clients.ts';
import { onEachDatabase } from './support/suite.ts';

/** iTwin.js is optional: without its native part there is nothing to open checkpoints with. */
const scenario: typeof Scenario | undefined = isITwinJsInstalled() ? await import('./support/scenario.ts') : undefined;

const config = { checkpoints: { generate: 'auto' as const, delaySeconds: 0.2 }, collector: { intervalSeconds: 0.2, graceSeconds: 0 } };

onEachDatabase('Checkpoints', config, (context) => {
  async function run(...parts: Scenario.ScenarioInput['part'][]): Promise<void> {
    const work = workFolder();
    try {
      const input = {
        origin: context.server.origin,
        token: await context.server.token('olivia'),
        iTwinId: await context.server.iTwin(),
        otherITwinId: await context.server.iTwin(),
        notes: path.join(work.path, 'notes.json'),
      };
      // A folder of its own for each: nothing is in a cache.
      for (const part of parts) await scenario?.runScenario({ ...input, part, folder: path.join(work.path, part) });
    } finally {
      work.remove();
    }
  }
  const skip = scenario === undefined ? 'iTwin.js is not installed' : false;

  test('clones open in iTwin.js with all that their source held, stay apart from it and outlive it', { skip }, () => run('clone', 'openAgain'));
  test('new, forked and templated iModels open in iTwin.js with all that they were made from', { skip }, () => run('derive'));
});
