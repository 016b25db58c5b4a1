import { Command, InvalidArgumentError, Option } from 'commander';
import { writeSection } from '../section.ts';
import { runGrowth, type GrowthEngine, type GrowthReport } from './run.ts';

interface Options {
  engine: GrowthEngine;
  size?: string;
  quick?: boolean;
  json?: boolean;
  write?: boolean;
}

/** The last pages of a list are read, and enough jobs must wait. */
const leastSize = 300;

/** `npm run bench -- growth` */
export function growthCommand(): Command {
  return new Command('growth')
    .description(
      'Compare the time of operations at some data with their time at ten times as much, in at most half an hour.',
    )
    .addOption(new Option('--engine <name>', 'database').choices(['sqlite', 'postgres']).default('sqlite'))
    .option(
      '--size <number>',
      'iModels of the smaller size; there are as many iTwins and users (default: 10,000, at least 300)',
    )
    .option('--quick', 'about a minute: 1,000 and 10,000 iModels')
    .option('--json', 'print one JSON object')
    .option('--write', 'replace the table of this database in docs/performance.md')
    .action(async ({ engine, size, quick = false, json = false, write = false }: Options) => {
      const smaller = Number(size ?? (quick ? 1000 : 10_000));
      if (!(smaller >= leastSize)) throw new InvalidArgumentError(`--size must be at least ${leastSize}.`);
      const report = await runGrowth(engine, smaller, quick ? 55 : 1700);
      const markdown = toMarkdown(report);
      if (write) writeSection(`growth ${engine}`, markdown);
      process.stdout.write(json ? `${JSON.stringify(report)}\n` : `${markdown}\n`);
    });
}

function toMarkdown({ machine, size, operations }: GrowthReport): string {
  const day = new Date().toISOString().slice(0, 10);
  const text = (value: number | null): string => (value === null ? '-' : value.toLocaleString('en-US'));
  const count = (value: number): string => value.toLocaleString('en-US');
  const rows = operations.map(
    ({ what, smallMs, largeMs, factor }) => `| ${what} | ${text(smallMs)} | ${text(largeMs)} | ${text(factor)} × |`,
  );
  return [
    `${day}: ${machine.cpu}, ${machine.cores} cores, ${machine.memoryGiB} GiB, Node ${machine.node.slice(1)}; ${machine.database}; ${machine.settings}.`,
    '',
    `| milliseconds | ${count(size)} iModels, ${count(10 * size)} changesets | ${count(10 * size)} iModels, ${count(100 * size)} changesets | factor |`,
    '| --- | ---: | ---: | ---: |',
    ...rows,
  ].join('\n');
}
