import { Command } from 'commander';
import { benchCheckpoints, type CheckpointBench } from '../bench/checkpoints.ts';
import { benchClone, type CloneBench } from '../bench/clone.ts';
import type { Machine } from '../bench/common.ts';
import { benchCrossStore } from '../bench/crossStore.ts';
import { benchThroughput, type ThroughputCase } from '../bench/throughput.ts';

/** `offshoot bench`: the load generator that ships with the product. */
export function benchCommand(): Command {
  return new Command('bench')
    .description('Measure this machine. Each benchmark starts its own server, on loopback, in a temporary folder.')
    .addCommand(cloneCommand())
    .addCommand(checkpointsCommand())
    .addCommand(throughputCommand())
    .addCommand(crossStoreCommand());
}

function cloneCommand(): Command {
  return new Command('clone')
    .description('Clones over HTTP, by number of changesets and by depth of history.')
    .option('--database-url <url>', 'measure on an empty PostgreSQL database instead of SQLite')
    .option('--seconds <number>', 'approximate time to measure each case', '2.5')
    .option('--json', 'print one JSON object')
    .action(async ({ databaseUrl, seconds, json }: { databaseUrl?: string; seconds: string; json?: boolean }) => {
      const columns =
        'changesets  depth   POST to 202 p50   p99 ms   client clone() p50 ms   metadata bytes  rows  blob bytes';
      const result = await benchClone({
        databaseUrl,
        secondsPerCase: Number(seconds),
        onCase: json === true ? () => undefined : printCase,
        onStart: json === true ? () => undefined : (machine) => printHead(machine, columns),
      });
      if (json === true) printJson(result);
    });
}

function checkpointsCommand(): Command {
  return new Command('checkpoints')
    .description(
      'Clones of iModels with checkpoints of 10 MB to 1 GB, compared with plain copies. Needs iTwin.js and 4 GB of disk.',
    )
    .option('--json', 'print one JSON object')
    .action(async ({ json }: { json?: boolean }) => {
      const columns = ' size MB   clone to successful p50 ms   plain copy p50 ms   bytes added';
      const result = await benchCheckpoints({
        onCase: json === true ? () => undefined : printCheckpointCase,
        onStart: json === true ? () => undefined : (machine) => printHead(machine, columns),
      });
      if (json === true) printJson(result);
    });
}

function throughputCommand(): Command {
  return new Command('throughput')
    .description('Clones and reads per second on PostgreSQL, with 1, 2 and 4 server processes.')
    .requiredOption('--database-url <url>', 'an empty PostgreSQL database')
    .option('--seconds <number>', 'time to measure clones, and then reads, in each case', '6')
    .option('--json', 'print one JSON object')
    .action(async ({ databaseUrl, seconds, json }: { databaseUrl: string; seconds: string; json?: boolean }) => {
      const columns = 'servers   clones/s   p50 ms   p99 ms   reads/s   p50 ms   p99 ms';
      const result = await benchThroughput({
        databaseUrl,
        seconds: Number(seconds),
        onCase: json === true ? () => undefined : printThroughput,
        onStart: json === true ? () => undefined : (machine) => printHead(machine, columns),
      });
      if (json === true) printJson(result);
    });
}

interface CrossStoreOptions {
  files: string;
  megabytes: string;
  kills: string;
  json?: boolean;
}

function crossStoreCommand(): Command {
  return new Command('cross-store')
    .description(
      'A clone into another data center, from folder to folder, compared with a plain copy of the same files. Needs three times their size on disk.',
    )
    .option('--files <number>', 'number of changesets of the source', '10000')
    .option('--megabytes <number>', 'total size of the changesets', '1000')
    .option('--kills <number>', 'number of times to kill the server during the clone', '0')
    .option('--json', 'print one JSON object')
    .action(async ({ files, megabytes, kills, json }: CrossStoreOptions) => {
      const columns = ' files      MB   seconds   files/s    MB/s   plain copy s   hashed, synced s   kills  orphans';
      const result = await benchCrossStore({
        files: Number(files),
        megabytes: Number(megabytes),
        kills: Number(kills),
        onStart: json === true ? () => undefined : (machine) => printHead(machine, columns),
      });
      if (json === true) return printJson(result);
      const { seconds, filesPerSecond, mbPerSecond, plainCopySeconds, hashedCopySeconds, orphanObjects } = result;
      const cells: [string | number, number][] = [
        [files, 6],
        [megabytes, 7],
        [seconds, 9],
        [filesPerSecond, 9],
        [mbPerSecond, 7],
        [plainCopySeconds, 14],
        [hashedCopySeconds, 18],
        [kills, 7],
        [orphanObjects, 8],
      ];
      process.stdout.write(`${cells.map(([value, width]) => String(value).padStart(width)).join(' ')}\n`);
    });
}

function printJson(result: unknown): void {
  process.stdout.write(`${JSON.stringify(result)}\n`);
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
