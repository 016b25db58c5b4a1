import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { Command } from 'commander';
import { startOffshoot } from '../packages/testing/src/index.ts';
import { sampleBaseline } from '../scripts/sample.ts';
import { median, rounded, timed, withFolder } from './common.ts';

interface Options {
  starts: string;
  clones: string;
  json?: boolean;
}

/** Clones for each iModel that is made from a file. */
const uploadEvery = 20;

/** Median and fastest of one kind of call, milliseconds. */
interface Times {
  median: number | null;
  fastest: number | null;
}

/** `npm run bench -- testing` */
export function testingCommand(): Command {
  return new Command('testing')
    .description('Measure what a test suite waits for with @offshoot/testing: the start, and the iModel of each test.')
    .option('--starts <number>', 'servers to start, one after the other', '10')
    .option('--clones <number>', 'iModels to make in each way', '200')
    .option('--json', 'print one JSON object')
    .action(async ({ starts, clones, json = false }: Options) => {
      const report = await measureTesting(Number(starts), Number(clones));
      const lines = Object.entries(report).map(
        ([what, { median, fastest }]) => `${String(median).padStart(9)} ms (fastest ${String(fastest)})  ${what}`,
      );
      process.stdout.write(json ? `${JSON.stringify(report)}\n` : `${lines.join('\n')}\n`);
    });
}

async function measureTesting(starts: number, clones: number): Promise<Record<string, Times>> {
  return withFolder(async (folder) => {
    const [starting, stopping, cloning, creating]: [number[], number[], number[], number[]] = [[], [], [], []];
    for (let n = 0; n < starts; n++) {
      const began = performance.now();
      const hub = await startOffshoot();
      starting.push(performance.now() - began);
      stopping.push(await timed(() => hub.stop()));
    }
    const file = path.join(folder, 'fixture.bim');
    writeFileSync(file, sampleBaseline());
    await using hub = await startOffshoot();
    const fixture = await hub.createIModel(file);
    for (let n = 0; n < clones; n++) {
      cloning.push(await timed(() => hub.clone(fixture)));
      // Slower, so measured less often; in between, because the load of a machine changes.
      if (n % uploadEvery === 0) creating.push(await timed(() => hub.createIModel(file)));
    }
    return {
      'startOffshoot()': timesOf(starting),
      'hub.stop()': timesOf(stopping),
      'hub.clone(fixture), one for each test': timesOf(cloning),
      'hub.createIModel(file), with the same fixture': timesOf(creating),
    };
  });
}

function timesOf(values: readonly number[]): Times {
  return { median: rounded(median(values)), fastest: rounded(Math.min(...values)) };
}
