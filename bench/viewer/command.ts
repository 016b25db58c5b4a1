import { cpus, totalmem } from 'node:os';
import { Command, InvalidArgumentError } from 'commander';
import { median, rounded } from '../common.ts';
import { writeSection } from '../section.ts';
import { measureViewer, type SourceCosts, type ViewCost } from './run.ts';
import { measureServers } from './servers.ts';

interface Options {
  rounds: string;
  large?: boolean;
  servers?: boolean;
  json?: boolean;
  write?: boolean;
}

/** `npm run bench -- viewer` */
export function viewerCommand(): Command {
  return new Command('viewer')
    .description(
      'Measure views of core-frontend in Chromium: the first and the second of an iModel, and the first of its clone.',
    )
    .option('--rounds <number>', 'new iModels of 1,300 elements to view, one after the other', '3')
    .option('--large', 'then as many of 52,000 elements')
    .option('--servers', 'view them on a second server with the same PostgreSQL and S3 instead of a clone')
    .option('--json', 'print one JSON object')
    .option('--write', 'replace the table in docs/performance.md')
    .action(async ({ rounds, large = false, servers = false, json = false, write = false }: Options) => {
      const count = Number(rounds);
      if (!Number.isInteger(count) || count < 1) throw new InvalidArgumentError('--rounds must be at least 1.');
      const report = await (servers ? measureServers(count, large) : measureViewer(count, large));
      const markdown = toMarkdown(report, servers ? 'PostgreSQL and an S3 server (s3rver)' : 'SQLite and files');
      if (write) writeSection(servers ? 'viewer-servers' : 'viewer', markdown);
      process.stdout.write(json ? `${JSON.stringify(report)}\n` : `${markdown}\n`);
    });
}

function toMarkdown(report: readonly SourceCosts[], storage: string): string {
  const rows = report.flatMap(({ elements, rounds }) =>
    Object.keys(rounds[0] ?? {}).map((what) => {
      const middle = (value: (cost: ViewCost) => number | null): number | null =>
        rounded(median(rounds.flatMap(({ [what]: cost }) => (cost === undefined ? [] : [value(cost) ?? NaN]))));
      const cells = [
        middle(({ ms }) => ms / 1000),
        middle(({ cpuMs }) => (cpuMs === null ? null : cpuMs / 1000)),
        middle(({ bytes }) => bytes / 2 ** 20),
        middle(({ calls }) => calls),
        middle(({ made }) => made),
        middle(({ kept }) => kept),
      ];
      const text = cells.map((cell) => String(cell ?? '-'));
      return `| ${elements.toLocaleString('en-US')} elements | ${what} | ${rounds.length} | ${text.join(' | ')} |`;
    }),
  );
  const day = new Date().toISOString().slice(0, 10);
  const gigabytes = Math.round(totalmem() / 2 ** 30);
  return [
    `${day}: ${cpus()[0]?.model.trim() ?? 'unknown'}, ${cpus().length} cores, ${gigabytes} GiB, Node ${process.version.slice(1)}, ${storage} on one disk; Chromium draws by software. Medians of the rounds.`,
    '',
    '| source | view | rounds | complete after, s | CPU of the back end, s | sent, MiB | calls | tiles made | tiles kept |',
    '| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |',
    ...rows,
  ].join('\n');
}
