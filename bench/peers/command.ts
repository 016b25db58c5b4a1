import { Command, Option } from 'commander';
import { writeSection } from '../section.ts';
import { toMarkdown } from './markdown.ts';
import { runPeers } from './run.ts';

interface Options {
  quick?: boolean;
  json?: boolean;
  write?: boolean;
  seconds?: string;
  rounds?: string;
  megabytes?: string;
}

/** `npm run bench -- peers` */
export function peersCommand(): Command {
  return new Command('peers')
    .description('Compare Offshoot with other ways to do the same, in one run of at most ten minutes.')
    .option('--quick', 'at most a minute: only the ratios and the main figures')
    .option('--json', 'print one JSON object')
    .option('--write', 'replace the table in docs/performance.md')
    .addOption(new Option('--seconds <number>', 'time of each side in each round').hideHelp())
    .addOption(new Option('--rounds <number>', 'number of rounds').hideHelp())
    .addOption(new Option('--megabytes <number>', 'size of the large file').hideHelp())
    .action(async ({ quick = false, json = false, write = false, seconds, rounds, megabytes }: Options) => {
      const report = await runPeers(
        {
          quick,
          rounds: Number(rounds ?? (quick ? 3 : 5)),
          seconds: Number(seconds ?? (quick ? 0.8 : 2)),
          megabytes: Number(megabytes ?? 128),
          files: quick ? 20 : 100,
        },
        quick ? 48 : 570,
      );
      const markdown = toMarkdown(report);
      if (write) writeSection('peers', markdown);
      process.stdout.write(json ? `${JSON.stringify(report)}\n` : `${markdown}\n`);
    });
}
