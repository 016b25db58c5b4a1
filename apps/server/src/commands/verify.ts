import { Command } from 'commander';
import { SingleBar } from 'cli-progress';
import { loadConfig } from '../config.ts';
import { openDatabase } from '../db/database.ts';
import { openStores } from '../storage/stores.ts';
import { verify, type Fault, type Verified } from '../verify/verify.ts';
import { exitCodes, ExitError } from './exit.ts';

/** `offshoot verify`: whether every file that the database knows is there, and whole. */
export function verifyCommand(): Command {
  return new Command('verify')
    .description('Compare database and store: missing, damaged and stray files. Changes nothing; the server may run.')
    .option('--data <folder>', 'data folder')
    .option('--config <file>', 'configuration file')
    .option('--deep', 'read every file and compare its hash')
    .option('--json', 'print one JSON object and no progress')
    .action(async (options: { data?: string; config?: string; deep?: boolean; json?: boolean }) => {
      const config = loadConfig(options.data === undefined ? {} : { dataDir: options.data }, options.config === undefined ? {} : { file: options.config });
      const database = await openDatabase(config, 'beside a server');
      const bar = options.json !== true && process.stderr.isTTY ? new SingleBar({ format: '{value} files checked', stream: process.stderr, clearOnComplete: true }) : undefined;
      try {
        bar?.start(0, 0);
        print(await verify(database.db, await openStores(config, database.db), options.deep === true, (checked) => bar?.update(checked)), options.json === true);
      } finally {
        bar?.stop();
        await database.close();
      }
    });
}

/** A line for each file that is not as it should be. */
export function printFaults(faults: readonly Fault[]): void {
  for (const { blobId, key, what } of faults) process.stdout.write(`${what.padEnd(8)} ${key}  (blob ${blobId})\n`);
}

function print(found: Verified, json: boolean): void {
  const { files, bytes, faults, strays } = found;
  if (json) process.stdout.write(`${JSON.stringify(found)}\n`);
  else {
    printFaults(faults);
    for (const key of strays) process.stdout.write(`stray    ${key}\n`);
    process.stdout.write(`${files} files, ${(bytes / 1e6).toFixed(1)} MB: ${faults.length === 0 ? 'all there' : `${faults.length} missing or damaged`}; ${strays.length} strays\n`);
  }
  if (faults.length > 0) throw new ExitError(exitCodes.failed, `${faults.length} of ${files} files are missing or damaged`);
}
