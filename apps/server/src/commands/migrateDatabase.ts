import { Command } from 'commander';
import { loadConfig } from '../config.ts';
import { DataFolderInUseError, openDatabase } from '../db/database.ts';
import { copyDatabase, CopyMismatchError, NotEmptyError } from '../migrate/copyDatabase.ts';
import { exitCodes, ExitError } from './exit.ts';

/** `offshoot migrate-database`: from the embedded database to PostgreSQL. */
export function migrateDatabaseCommand(): Command {
  return new Command('migrate-database')
    .description('Move an embedded installation to PostgreSQL. Stop the server first; files stay where they are.')
    .requiredOption('--to <url>', 'postgres://… of an empty database')
    .option('--data <folder>', 'data folder')
    .option('--config <file>', 'configuration file')
    .action(async (options: { to: string; data?: string; config?: string }) => {
      const { dataDir, databasePool, databasePrepares } = loadConfig(options.data === undefined ? {} : { dataDir: options.data }, options.config === undefined ? {} : { file: options.config });
      try {
        const from = await openDatabase({ dataDir, databasePool, databasePrepares });
        const to = await openDatabase({ dataDir, databasePool, databasePrepares, databaseUrl: options.to });
        try {
          const counts = await copyDatabase(from, to, (table, rows) => rows > 0 && process.stderr.write(`${String(rows).padStart(9)}  ${table}\n`));
          const total = Object.values(counts).reduce((sum, count) => sum + count, 0);
          process.stdout.write(`${total} rows copied, each compared. Start the server with OFFSHOOT_DATABASE_URL=${withoutPassword(options.to)}; offshoot.db stays as it is.\n`);
        } finally {
          await to.close();
          await from.close();
        }
      } catch (error) {
        if (error instanceof NotEmptyError || error instanceof CopyMismatchError || error instanceof DataFolderInUseError) throw new ExitError(exitCodes.failed, error.message, error);
        throw error;
      }
    });
}

function withoutPassword(url: string): string {
  const shown = new URL(url);
  if (shown.password !== '') shown.password = '***';
  return shown.href;
}
