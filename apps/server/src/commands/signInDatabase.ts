import type { Config } from '../config.ts';
import { openDatabase, type Db } from '../db/database.ts';
import { exitCodes, ExitError } from './exit.ts';
import { configOf } from './installation.ts';
import type { InstallationOptions } from './installationOptions.ts';

/**
 * Opens the database of an installation at which users sign in, beside its server.
 * @param elsewhere why there is nothing to do if users sign in at other issuers only
 * @throws ExitError failed, with that reason
 */
export async function withSignInDatabase(
  options: InstallationOptions,
  elsewhere: string,
  work: (db: Db, config: Config) => Promise<void>,
): Promise<void> {
  const config = configOf(options);
  if (!config.embeddedIssuer) throw new ExitError(exitCodes.failed, `${elsewhere}: embeddedIssuer is false`);
  const database = await openDatabase(config, 'beside a server');
  try {
    await work(database.db, config);
  } finally {
    await database.close();
  }
}
