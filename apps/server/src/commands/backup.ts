import path from 'node:path';
import { Command } from 'commander';
import { backUp, BackupError, type BackedUp } from '../maintenance/backup.ts';
import { DataFolderInUseError } from '../db/database.ts';
import { exitCodes, ExitError } from './exit.ts';
import { configOf } from './installation.ts';
import { withInstallation, type InstallationOptions } from './installationOptions.ts';
import { progressBar } from './progress.ts';
import { printFaults } from './verify.ts';
import { countText } from '../terminal.ts';

/** `offshoot backup`: makes a copy of an embedded installation on which a server can start. */
export function backupCommand(): Command {
  return withInstallation(new Command('backup'))
    .description(
      'Create or update a backup of an embedded installation while its server runs. The backup is a data folder: to restore, start a server on it.',
    )
    .argument('<folder>', 'folder of the backup; if it already holds one, only new files are copied')
    .option('--json', 'print one JSON object and no progress')
    .action(async (folder: string, options: InstallationOptions & { json?: boolean }) => {
      const bar = progressBar('[{bar}] {value}/{total} files', options.json !== true);
      const target = path.resolve(folder);
      let done: BackedUp;
      try {
        bar?.start(0, 0);
        done = await backUp(configOf(options), target, (value, total) => {
          bar?.setTotal(total);
          bar?.update(value);
        });
      } catch (error) {
        if (error instanceof BackupError || error instanceof DataFolderInUseError)
          throw new ExitError(exitCodes.usage, error.message, error);
        throw error;
      } finally {
        bar?.stop();
      }
      print(done, target, options.json === true);
    });
}

function print(done: BackedUp, target: string, json: boolean): void {
  const { files, copied, removed, faults, elsewhere } = done;
  if (json) process.stdout.write(`${JSON.stringify(done)}\n`);
  else {
    printFaults(faults);
    process.stdout.write(
      `${target}\n  database and ${countText(files, 'file')}, ${copied} of them new, ${removed} no longer needed\n`,
    );
    for (const id of elsewhere)
      process.stdout.write(`  not included: the files in ${id}, which the storage service keeps\n`);
  }
  if (faults.length > 0)
    throw new ExitError(
      exitCodes.failed,
      `of ${countText(files, 'file')}, ${faults.length} missing or damaged; all others are in the backup`,
    );
}
