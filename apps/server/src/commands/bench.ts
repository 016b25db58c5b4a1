import { Command } from 'commander';
import { benchCheckpoints, type CheckpointBench } from '../bench/checkpoints.ts';
import { benchClone, type CloneBench } from '../bench/clone.ts';
import type { Machine } from '../bench/common.ts';
import { benchCrossStore } from '../bench/crossStore.ts';
import { benchThroughput, type ThroughputCase } from '../bench/throughput.ts';

/** `offshoot bench`: the load generator that ships with the product. */
export function benchCommand(): Command {
  return new Command('bench')
    .description('Measure this machine. Each benchmark starts a server of its own, on loopback, in a temporary folder.')
    .addCommand(
      new Command('clone')
        .description('Clones over HTTP: by number of changesets, and by depth of history.')
        .option('--database-url <url>', 'measure on an empty PostgreSQL database instead of SQLite')
        .option('--seconds <number>', 'about how long to measure each case', '2.5')
        .option('--json', 'print one JSON object')
        .action(async (options: { databaseUrl?: string; seconds: string; json?: boolean }) => {
          const result = await benchClone({
            databaseUrl: options.databaseUrl,
            secondsPerCase: Number(options.seconds),
            onCase: options.json === true ? () => undefined : printCase,
            onStart:
              options.json === true
                ? () => undefined
                : (machine) =>
                    printHead(
                      machine,
                      'changesets  depth   POST to 202 p50   p99 ms   client clone() p50 ms   metadata bytes  rows  blob bytes',
                    ),
          });
          if (options.json === true) process.stdout.write(`${JSON.stringify(result)}\n`);
        }),
    )
    .addCommand(
      new Command('checkpoints')
        .description(
          'Clones of iModels with checkpoints of 10 MB to 1 GB, beside plain copies. Needs iTwin.js and 4 GB of disk.',
        )
        .option('--json', 'print one JSON object')
        .action(async (options: { json?: boolean }) => {
          const quiet = options.json === true;
          const result = await benchCheckpoints({
            onCase: quiet ? () => undefined : printCheckpointCase,
            onStart: quiet
              ? () => undefined
              : (machine) =>
                  printHead(machine, ' size MB   clone to successful p50 ms   plain copy p50 ms   bytes added'),
          });
          if (quiet) process.stdout.write(`${JSON.stringify(result)}\n`);
        }),
    )
    .addCommand(
      new Command('throughput')
        .description('Clones and reads a second on PostgreSQL, with 1, 2 and 4 server processes.')
        .requiredOption('--database-url <url>', 'an empty PostgreSQL database')
        .option('--seconds <number>', 'how long clones, and then reads, are measured for each case', '6')
        .option('--json', 'print one JSON object')
        .action(async ({ databaseUrl, seconds, json }: { databaseUrl: string; seconds: string; json?: boolean }) => {
          const quiet = json === true;
          const result = await benchThroughput({
            databaseUrl,
            seconds: Number(seconds),
            onCase: quiet ? () => undefined : printThroughput,
            onStart: quiet
              ? () => undefined
              : (machine) => printHead(machine, 'servers   clones/s   p50 ms   p99 ms   reads/s   p50 ms   p99 ms'),
          });
          if (quiet) process.stdout.write(`${JSON.stringify(result)}\n`);
        }),
    )
    .addCommand(
      new Command('cross-store')
        .description(
          'A clone into another data center, from folder to folder, beside a plain copy of the same files. Takes three times their size on disk.',
        )
        .option('--files <number>', 'changesets of the source', '10000')
        .option('--megabytes <number>', 'size of all of them', '1000')
        .option('--kills <number>', 'kill the server so often meanwhile', '0')
        .option('--json', 'print one JSON object')
        .action(
          async ({
            files,
            megabytes,
            kills,
            json,
          }: {
            files: string;
            megabytes: string;
            kills: string;
            json?: boolean;
          }) => {
            const onStart = (machine: Machine): void =>
              json === true
                ? undefined
                : printHead(machine, ' files      MB   seconds   files/s    MB/s   plain copy s   kills   strays');
            const result = await benchCrossStore({
              files: Number(files),
              megabytes: Number(megabytes),
              kills: Number(kills),
              onStart,
            });
            if (json === true) process.stdout.write(`${JSON.stringify(result)}\n`);
            else {
              const { seconds, filesPerSecond, mbPerSecond, plainCopySeconds, orphanObjects } = result;
              const cells: [string | number, number][] = [
                [files, 6],
                [megabytes, 7],
                [seconds, 9],
                [filesPerSecond, 9],
                [mbPerSecond, 7],
                [plainCopySeconds, 14],
                [kills, 7],
                [orphanObjects, 8],
              ];
              process.stdout.write(`${cells.map(([value, width]) => String(value).padStart(width)).join(' ')}\n`);
            }
          },
        ),
    );
}

function printHead(machine: Machine, columns: string): void {
  process.stdout.write(
    `${machine.cpu}, ${machine.cores} cores, ${machine.memoryGiB} GiB, Node ${machine.node}, ${machine.database}; ${machine.settings}\n\n${columns}\n`,
  );
}

function printThroughput(found: ThroughputCase): void {
  const cells = [
    String(found.servers).padStart(7),
    String(found.clonesPerSecond).padStart(10),
    found.cloneP50Ms.toFixed(1).padStart(8),
    found.cloneP99Ms.toFixed(1).padStart(8),
    String(found.readsPerSecond).padStart(9),
    found.readP50Ms.toFixed(1).padStart(8),
    found.readP99Ms.toFixed(1).padStart(8),
  ];
  process.stdout.write(`${cells.join(' ')}\n`);
}

function printCheckpointCase(found: CheckpointBench['cases'][number]): void {
  const cells = [
    String(found.sizeMB).padStart(8),
    found.cloneToSuccessfulMs.toFixed(2).padStart(28),
    found.plainCopyMs.toFixed(0).padStart(19),
    String(found.bytesAdded).padStart(13),
  ];
  process.stdout.write(`${cells.join(' ')}\n`);
}

function printCase(found: CloneBench['cases'][number]): void {
  const cells = [
    String(found.changesets).padStart(10),
    String(found.depth).padStart(6),
    found.p50Ms.toFixed(2).padStart(17),
    found.p99Ms.toFixed(2).padStart(8),
    (found.clientP50Ms?.toFixed(2) ?? '-').padStart(23),
    String(found.bytesAdded).padStart(16),
    String(found.rowsAdded).padStart(5),
    String(found.blobBytesAdded).padStart(11),
  ];
  process.stdout.write(`${cells.join(' ')}\n`);
}
