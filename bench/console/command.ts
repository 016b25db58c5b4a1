import { cpus, totalmem } from 'node:os';
import { Command, InvalidArgumentError } from 'commander';
import { median, rounded } from '../common.ts';
import { writeSection } from '../section.ts';
import { measureConsole, type SourceTimes } from './run.ts';

interface Options {
  rounds: string;
  json?: boolean;
  write?: boolean;
}

/** `npm run bench -- console` */
export function consoleCommand(): Command {
  return new Command('console')
    .description(
      'Measure the time from the click on "Clone" to the picture of the clone in Chromium, beside a copy that a client makes.',
    )
    .option('--rounds <number>', 'copies of each kind and source, taken in turn', '5')
    .option('--json', 'print one JSON object')
    .option('--write', 'replace the table in docs/performance.md')
    .action(async ({ rounds, json = false, write = false }: Options) => {
      const count = Number(rounds);
      if (!Number.isInteger(count) || count < 1) throw new InvalidArgumentError('--rounds must be at least 1.');
      const report = await measureConsole(count);
      const markdown = toMarkdown(report, count);
      if (write) writeSection('console', markdown);
      process.stdout.write(json ? `${JSON.stringify(report)}\n` : `${markdown}\n`);
    });
}

function toMarkdown(report: readonly SourceTimes[], rounds: number): string {
  const seconds = (values: readonly number[]): string => String(rounded(median(values) / 1000) ?? '-');
  const rows = report.map(({ what, clone, copy }) => {
    const factor = rounded(median(copy.map((value, round) => value / (clone[round] ?? NaN))));
    return `| ${what} | ${seconds(clone)} | ${seconds(copy)} | ${factor ?? '-'} × |`;
  });
  const day = new Date().toISOString().slice(0, 10);
  const gigabytes = Math.round(totalmem() / 2 ** 30);
  return [
    `${day}: ${cpus()[0]?.model.trim() ?? 'unknown'}, ${cpus().length} cores, ${gigabytes} GiB, Node ${process.version.slice(1)}, SQLite and files on one disk; Chromium draws by software. Medians of ${rounds} rounds, taken in turn; the factor is the median of those of each round.`,
    '',
    '| source | clone, s | copy by a client, s | factor |',
    '| --- | ---: | ---: | ---: |',
    ...rows,
  ].join('\n');
}
