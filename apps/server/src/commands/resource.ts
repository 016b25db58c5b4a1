/** What the commands of all resources share. */
import { createInterface } from 'node:readline/promises';
import { Command } from 'commander';
import { withConnection, type ConnectionOptions } from './connection.ts';
import { exitCodes, ExitError } from './exit.ts';
import type { OutputOptions } from './output.ts';

/** Options of every command of a resource. */
export type ResourceOptions = ConnectionOptions & OutputOptions;

/** A command of a resource: `offshoot iTwins create`. It calls a server, and prints JSON on request. */
export function resourceCommand(name: string, description: string, json = 'print one JSON object'): Command {
  return withConnection(new Command(name)).description(description).option('--json', json);
}

/** The same for lists, which print a JSON array. */
export function listCommand(description: string): Command {
  return resourceCommand('list', description, 'print one JSON array');
}

/** Adds the commands of a resource. Without a command, the first one runs, which is its list. */
export function withCommands(group: Command, list: Command, ...others: readonly Command[]): Command {
  group.addCommand(list, { isDefault: true });
  for (const command of others) group.addCommand(command);
  return group;
}

/** Adds the option that confirms a deletion. */
export function withConfirmation(command: Command): Command {
  return command.option('--yes', 'do not ask for confirmation');
}

/**
 * Asks before something is deleted.
 * @throws ExitError usage if nobody can be asked, failed if the answer is not yes
 */
export async function confirm(question: string, { yes = false }: { yes?: boolean }): Promise<void> {
  if (yes) return;
  if (!process.stdin.isTTY || !process.stderr.isTTY)
    throw new ExitError(exitCodes.usage, `${question} Nobody can be asked here: give --yes to confirm.`);
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  try {
    const answer = await terminal.question(`${question} [y/N] `);
    if (!/^y(es)?$/i.test(answer.trim())) throw new ExitError(exitCodes.failed, 'nothing was deleted');
  } finally {
    terminal.close();
  }
}
