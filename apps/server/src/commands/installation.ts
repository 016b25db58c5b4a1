import type { Command } from 'commander';
import { loadConfig, type Config } from '../config.ts';

/** The installation that a command accesses directly, without its server. */
export interface InstallationOptions {
  data?: string;
  config?: string;
}

/** Adds the options of commands that access an installation directly. */
export function withInstallation(command: Command): Command {
  return command.option('--data <folder>', 'data folder').option('--config <file>', 'configuration file');
}

/** The configuration of the installation that the options specify. @throws ConfigError */
export function configOf({ data, config }: InstallationOptions): Config {
  return loadConfig(data === undefined ? {} : { dataDir: data }, config === undefined ? {} : { file: config });
}
