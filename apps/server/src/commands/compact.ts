import { existsSync } from 'node:fs';
import path from 'node:path';
import { Command } from 'commander';
import { databaseFile, DataFolderInUseError, openDatabase } from '../db/database.ts';
import { compact, NoRoomToCompactError } from '../db/sqlite/freeSpace.ts';
import { exitCodes, ExitError } from './exit.ts';
import { configOf } from './installation.ts';
import { withInstallation, type InstallationOptions } from './installationOptions.ts';

/** `offshoot compact`: rewrites the embedded database without free pages. */
export function compactCommand(): Command {
  return withInstallation(new Command('compact'))
    .description(
      'Compact the embedded database. Afterwards it returns free space automatically. Stop the server first. Needs free disk space of twice the size of the database.',
    )
    .option('--json', 'print one JSON object')
    .action(async (options: InstallationOptions & { json?: boolean }) => {
      const config = configOf(options);
      if (config.databaseUrl !== undefined)
        throw new ExitError(
          exitCodes.usage,
          'this installation is on PostgreSQL, which returns space by itself (autovacuum)',
        );
      const file = path.join(config.dataDir, databaseFile);
      if (!existsSync(file)) throw new ExitError(exitCodes.usage, `no installation found at ${config.dataDir}`);
      try {
        const database = await openDatabase(config);
        try {
          if (database.writer === undefined) return;
          const sizes = await compact(database.writer, file);
          const inMB = (bytes: number): string => (bytes / 1e6).toFixed(1);
          process.stdout.write(
            options.json === true
              ? `${JSON.stringify(sizes)}\n`
              : `${file}\n  ${inMB(sizes.before)} MB before, ${inMB(sizes.after)} MB now\n`,
          );
        } finally {
          await database.close();
        }
      } catch (error) {
        if (error instanceof DataFolderInUseError) throw new ExitError(exitCodes.usage, error.message, error);
        if (error instanceof NoRoomToCompactError) throw new ExitError(exitCodes.failed, error.message, error);
        throw error;
      }
    });
}
