import { Command } from 'commander';
import { accountCommands } from './accountCommands.ts';
import { Connection } from './connection.ts';
import { exitCodes, ExitError } from './exit.ts';
import { iModelIdOf, namedIn } from './names.ts';
import { printList, printObject, timeText, type Column } from './output.ts';
import { listCommand, resourceCommand, withCommands, type ResourceOptions } from './resource.ts';

interface User {
  id: string;
  displayName: string;
  email: string;
  givenName: string;
  surname: string;
  statistics: {
    pushedChangesetsCount: number;
    lastChangesetPushDate: string | null;
    createdVersionsCount: number;
    briefcasesCount: number;
    lastAccessTime: string | null;
  };
}

const columns: Column<User>[] = [
  { title: 'ID', of: ({ id }) => id },
  { title: 'E-MAIL', of: ({ email }) => email },
  { title: 'NAME', of: ({ givenName, surname }) => [givenName, surname].filter((name) => name !== '').join(' ') },
  { title: 'PUSHED', of: ({ statistics }) => statistics.pushedChangesetsCount },
  { title: 'LAST PUSH', of: ({ statistics }) => timeText(statistics.lastChangesetPushDate) },
  { title: 'LAST ACCESS', of: ({ statistics }) => timeText(statistics.lastAccessTime) },
];
const details: Column<User>[] = [
  ...columns,
  { title: 'VERSIONS', of: ({ statistics }) => statistics.createdVersionsCount },
  { title: 'BRIEFCASES', of: ({ statistics }) => statistics.briefcasesCount },
];

interface UserOptions extends ResourceOptions {
  imodel: string;
  itwin?: string;
}

/** `offshoot users`: the users of an iModel, and the accounts with which users sign in at the server itself. */
export function usersCommand(): Command {
  const onIModel = (command: Command) =>
    command
      .requiredOption('--imodel <name or id>', 'iModel that they have used')
      .option('--itwin <name or id>', 'iTwin of the iModel, if several iModels have its name');
  return withCommands(
    new Command('users').description(
      'List and show the users of an iModel, and manage the accounts of users who sign in at this server. For the users of an iTwin, see members.',
    ),
    onIModel(listCommand('List all users who have connected to an iModel.')).action(list),
    onIModel(
      resourceCommand('show', 'Show a user of an iModel, and what the user did there.').argument(
        '<user>',
        'e-mail or id',
      ),
    ).action(show),
    ...accountCommands(),
  );
}

async function usersOf(connection: Connection, options: UserOptions): Promise<User[]> {
  const id = await iModelIdOf(connection, options.imodel, options.itwin);
  return connection.all<User>(`/imodels/${id}/users?$top=1000`, 'users');
}

async function list(options: UserOptions): Promise<void> {
  printList(await usersOf(await Connection.open(options), options), columns, options);
}

async function show(user: string, options: UserOptions): Promise<void> {
  if (user.trim() === '') throw new ExitError(exitCodes.usage, 'give the e-mail or the id of a user');
  const users = await usersOf(await Connection.open(options), options);
  printObject(
    namedIn('user', users, ({ email, id }) => (email === '' ? id : email), user),
    details,
    options,
  );
}
