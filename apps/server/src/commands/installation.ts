import { loadConfig, type Config } from '../config.ts';
import type { InstallationOptions } from './installationOptions.ts';

/** The configuration of the installation that the options specify. @throws ConfigError */
export function configOf({ data, config }: InstallationOptions): Config {
  return loadConfig(data === undefined ? {} : { dataDir: data }, config === undefined ? {} : { file: config });
}
