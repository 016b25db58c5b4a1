import { existsSync } from 'node:fs';
import path from 'node:path';
import { Command } from 'commander';
import { databaseFile, DataFolderInUseError, openDatabase } from '../db/database.ts';
import { copyDatabase, CopyMismatchError, NotEmptyError } from '../maintenance/migrateDatabase.ts';
import { exitCodes, ExitError } from './exit.ts';
import { configOf } from './installation.ts';
import { withInstallation, type InstallationOptions } from './installationOptions.ts';

/** `offshoot migrate-database`: copies the embedded database into PostgreSQL. */
export function migrateDatabaseCommand(): Command {
  return withInstallation(new Command('migrate-database'))
    .description('Migrate an embedded installation to PostgreSQL. Stop the server first. Stored files are not moved.')
    .requiredOption('--to <url>', 'postgres://… of an empty database')
    .action(async (options: InstallationOptions & { to: string }) => {
      const { dataDir, databasePool, databasePrepares, databaseWaitSeconds, databaseLockSeconds } = configOf(options);
      const settings = { dataDir, databasePool, databasePrepares, databaseWaitSeconds, databaseLockSeconds };
      // Opening a missing database would create an empty one, which would then be copied.
      if (!existsSync(path.join(dataDir, databaseFile)))
        throw new ExitError(exitCodes.usage, `no embedded installation found at ${dataDir}`);
      try {
        const from = await openDatabase(settings);
        const to = await openDatabase({ ...settings, databaseUrl: options.to });
        try {
          const counts = await copyDatabase(
            from,
            to,
            (table, rows) => rows > 0 && process.stderr.write(`${String(rows).padStart(9)}  ${table}\n`),
          );
          const total = Object.values(counts).reduce((sum, count) => sum + count, 0);
          process.stdout.write(
            `${total} rows copied and verified. Start the server with OFFSHOOT_DATABASE_URL=${withoutPassword(options.to)}; offshoot.db is unchanged.\n`,
          );
        } finally {
          await to.close();
          await from.close();
        }
      } catch (error) {
        if (
          error instanceof NotEmptyError ||
          error instanceof CopyMismatchError ||
          error instanceof DataFolderInUseError
        )
          throw new ExitError(exitCodes.failed, error.message, error);
        throw error;
      }
    });
}

function withoutPassword(url: string): string {
  const shown = new URL(url);
  if (shown.password !== '') shown.password = '***';
  return shown.href;
}
