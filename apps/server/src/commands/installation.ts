import type { Command } from 'commander';
import { loadConfig, type Config } from '../config.ts';

/** Which installation a command works on itself, without its server. */
export interface InstallationOptions {
  data?: string;
  config?: string;
}

/** Adds the options of commands that work on an installation itself. */
export function withInstallation(command: Command): Command {
  return command.option('--data <folder>', 'data folder').option('--config <file>', 'configuration file');
}

/** The configuration of the installation that the options name. @throws ConfigError */
export function configOf({ data, config }: InstallationOptions): Config {
  return loadConfig(data === undefined ? {} : { dataDir: data }, config === undefined ? {} : { file: config });
}
