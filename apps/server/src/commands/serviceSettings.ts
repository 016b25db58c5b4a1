import { ConfigError, loadConfig, shortestServiceKey, type Config } from '../config.ts';
import { exitCodes, ExitError } from './exit.ts';

/** The options that all services without a database take. */
export interface ServiceOptions {
  data?: string;
  host?: string;
  port?: string;
  config?: string;
}

/** What differs between the services. */
interface Service {
  /** As a sentence names it. */
  name: string;
  /** Variable of the environment with the key that the service shares with the servers. */
  keyName: string;
  /** The key of the configuration, which applies without the variable. */
  keyOf: (config: Config) => string | undefined;
  /** Faults of the options of this service alone. */
  faults?: readonly string[];
}

/**
 * Settings of a service that runs native code on files of users, and is started on its own.
 * @throws ExitError usage when the settings do not suit it
 */
export function serviceSettings(
  { data, host, port, config: file }: ServiceOptions,
  { name, keyName, keyOf, faults = [] }: Service,
): { config: Config; key: string } {
  try {
    const overrides = {
      ...(data !== undefined && { dataDir: data }),
      ...(host !== undefined && { host }),
      ...(port !== undefined && { port: Number(port) }),
    };
    const config = loadConfig(overrides, file === undefined ? {} : { file });
    const key = process.env[keyName] ?? keyOf(config) ?? '';
    const found = [...faults];
    if (key.length < shortestServiceKey)
      found.push(`${keyName} is missing or shorter than ${shortestServiceKey} characters`);
    // A hostile file that takes over this process must find no database address here.
    if (config.databaseUrl !== undefined)
      found.push(`databaseUrl is set: the ${name} does not use the database, and must not be given its address`);
    if (found.length > 0) throw new ConfigError(found);
    return { config, key };
  } catch (error) {
    throw error instanceof ConfigError ? new ExitError(exitCodes.usage, error.message, error) : error;
  }
}
