import { Command } from 'commander';
import { openDatabase } from '../db/database.ts';
import { openStores } from '../storage/stores.ts';
import { verify, type Fault, type Verified } from '../maintenance/verify.ts';
import { exitCodes, ExitError } from './exit.ts';
import { configOf } from './installation.ts';
import { withInstallation, type InstallationOptions } from './installationOptions.ts';
import { progressBar } from './progress.ts';
import { countText } from '../terminal.ts';

/** `offshoot verify`: checks that every file that the database refers to exists and is intact. */
export function verifyCommand(): Command {
  return withInstallation(new Command('verify'))
    .description(
      'Compare database and store, and report missing, damaged and orphaned files. Read-only; the server may be running.',
    )
    .option('--deep', 'read every file and compare its hash')
    .option('--json', 'print one JSON object and no progress')
    .action(async (options: InstallationOptions & { deep?: boolean; json?: boolean }) => {
      const config = configOf(options);
      const database = await openDatabase(config, 'beside a server');
      const bar = progressBar('{value} files checked', options.json !== true);
      try {
        bar?.start(0, 0);
        print(
          await verify(database.db, await openStores(config, database.db), options.deep === true, (checked) =>
            bar?.update(checked),
          ),
          options.json === true,
        );
      } finally {
        bar?.stop();
        await database.close();
      }
    });
}

/** Prints one line for each missing or damaged file. */
export function printFaults(faults: readonly Fault[]): void {
  for (const { blobId, key, what } of faults) process.stdout.write(`${what.padEnd(8)} ${key}  (blob ${blobId})\n`);
}

function print(found: Verified, json: boolean): void {
  const { files, bytes, faults, orphanObjects, orphans } = found;
  if (json) process.stdout.write(`${JSON.stringify(found)}\n`);
  else {
    printFaults(faults);
    for (const key of orphanObjects) process.stdout.write(`orphan   ${key}\n`);
    for (const [table, count] of Object.entries(orphans))
      process.stdout.write(
        `orphan   ${count} unreferenced rows of ${table}; the collector deletes them within a day\n`,
      );
    process.stdout.write(
      `${countText(files, 'file')}, ${(bytes / 1e6).toFixed(1)} MB: ${faults.length === 0 ? 'all present' : `${faults.length} missing or damaged`}; ${countText(orphanObjects.length, 'orphaned file')}\n`,
    );
  }
  if (faults.length > 0)
    throw new ExitError(exitCodes.failed, `of ${countText(files, 'file')}, ${faults.length} missing or damaged`);
}
