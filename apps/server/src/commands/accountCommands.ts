import type { Command } from 'commander';
import { installationCommand, type InstallationOptions } from './installationOptions.ts';
import type { OutputOptions } from './output.ts';
import { withConfirmation } from './resource.ts';

export type AccountOptions = InstallationOptions & OutputOptions;

export interface PasswordOptions extends AccountOptions {
  passwordStdin?: boolean;
  expiresIn: string;
}

export interface AddOptions extends PasswordOptions {
  givenName?: string;
  surname?: string;
  organization?: string;
  administrator?: boolean;
}

/** Loaded when one of them runs: they open the database. */
const actions = () => import('./accounts.ts');

/** `offshoot users accounts`, `add`, `password` and `remove`: they change the installation directly, beside a running server. */
export function accountCommands(): Command[] {
  const withPassword = (command: Command) =>
    command
      .option('--password-stdin', 'read the password from standard input instead of printing a one-time link')
      .option('--expires-in <time>', 'how long the one-time link is good, such as 12h or 7d', '7d');
  return [
    installationCommand('accounts', 'List the users of the users file, and who of them has a password.').action(
      async (options: AccountOptions) => (await actions()).list(options),
    ),
    withPassword(
      installationCommand('add', 'Add a user who signs in at this server, and print a one-time link to set a password.')
        .argument('<e-mail>', 'what the user signs in with')
        .option('--given-name <name>', 'given name')
        .option('--surname <name>', 'surname')
        .option('--organization <name or id>', 'organization of the user; by default the only one')
        .option('--administrator', 'Organization Administrator: every permission on all iTwins of the organization'),
    ).action(async (email: string, options: AddOptions) => (await actions()).add(email, options)),
    withPassword(
      installationCommand('password', 'Print a one-time link with which a user sets a new password.')
        .argument('<user>', 'e-mail or id')
        .option('--remove', 'remove the password and end all sessions of the user'),
    ).action(async (user: string, options: PasswordOptions & { remove?: boolean }) =>
      (await actions()).setPassword(user, options),
    ),
    withConfirmation(
      installationCommand(
        'remove',
        'Remove a user from the users file, with the password and all sessions. What the user made stays.',
      ).argument('<user>', 'e-mail or id'),
    ).action(async (user: string, options: AccountOptions & { yes?: boolean }) =>
      (await actions()).remove(user, options),
    ),
  ];
}
