import { Command } from 'commander';

/** The installation that a command accesses directly, without its server. */
export interface InstallationOptions {
  data?: string;
  config?: string;
}

/** Adds the options of commands that access an installation directly. */
export function withInstallation(command: Command): Command {
  return command.option('--data <folder>', 'data folder').option('--config <file>', 'configuration file');
}

/** A command that accesses an installation directly, and prints JSON on request. */
export function installationCommand(name: string, description: string): Command {
  return withInstallation(new Command(name).description(description)).option('--json', 'print JSON');
}
