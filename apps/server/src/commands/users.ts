import { Command } from 'commander';
import pMap from 'p-map';
import { emailKey } from '../domain.ts';
import { accountCommands } from './accountCommands.ts';
import { Connection } from './connection.ts';
import { exitCodes, ExitError } from './exit.ts';
import { iModelIdOf, iTwinIdOf, namedIn } from './names.ts';
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

/** A person as the Users API shows one. */
interface Person {
  id: string;
  email: string;
  givenName: string;
  surname: string;
  organizationName: string | null;
}

const personColumns: Column<Person>[] = [
  { title: 'ID', of: ({ id }) => id },
  { title: 'E-MAIL', of: ({ email }) => email || null },
  { title: 'NAME', of: ({ givenName, surname }) => [givenName, surname].filter((name) => name !== '').join(' ') },
  { title: 'ORGANIZATION', of: ({ organizationName }) => organizationName },
];

/** Most iTwins whose members are searched for an e-mail address. */
const mostITwins = 1000;
/** Requests at a time while they are searched. */
const searches = 8;

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
    resourceCommand('show', 'Show a user; with --imodel, also what the user did there.')
      .argument('<user>', 'e-mail or id. An e-mail is looked up among the members of your iTwins')
      .option('--imodel <name or id>', 'iModel that the user has used')
      .option('--itwin <name or id>', 'iTwin of the iModel, or the only one whose members are searched')
      .action(show),
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

async function show(user: string, options: ResourceOptions & { imodel?: string; itwin?: string }): Promise<void> {
  if (user.trim() === '') throw new ExitError(exitCodes.usage, 'give the e-mail or the id of a user');
  const connection = await Connection.open(options);
  const { imodel } = options;
  if (imodel === undefined) {
    printObject(await personOf(connection, user, options.itwin), personColumns, options);
    return;
  }
  const users = await usersOf(connection, { ...options, imodel });
  printObject(
    namedIn('user', users, ({ email, id }) => (email === '' ? id : email), user),
    details,
    options,
  );
}

/** @throws ExitError refused if there is none that the caller may see */
async function personOf(connection: Connection, text: string, iTwin: string | undefined): Promise<Person> {
  const get = async (id: string): Promise<Person> =>
    ((await connection.request('GET', `/users/${encodeURIComponent(id)}`)).body as { user: Person }).user;
  if (!text.includes('@')) return get(text);
  const wanted = emailKey(text);
  const me = await get('me').catch(ifRefused);
  if (me !== undefined && emailKey(me.email) === wanted) {
    const { id, email, givenName, surname, organizationName } = me;
    return { id, email, givenName, surname, organizationName };
  }
  const iTwins =
    iTwin === undefined
      ? await connection.all<{ id: string }>('/itwins?includeInactive=true&$top=1000', 'iTwins', {
          prefer: 'minimal',
          most: mostITwins,
        })
      : [{ id: await iTwinIdOf(connection, iTwin) }];
  const found = await pMap(
    iTwins,
    async ({ id }) => {
      const address = `/accesscontrol/itwins/${id}/members/users?$top=1000`;
      const members = await connection.all<Omit<Person, 'email'> & { email: string | null }>(address, 'members').catch(
        // Not everybody may see the members of an iTwin.
        (error: unknown) => ifRefused(error) ?? [],
      );
      return members.find(({ email }) => email !== null && emailKey(email) === wanted);
    },
    { concurrency: searches },
  );
  const member = found.find((each) => each !== undefined);
  if (member === undefined)
    throw new ExitError(
      exitCodes.refused,
      `no member of ${iTwin === undefined ? 'your iTwins' : `'${iTwin}'`} has the e-mail '${text}'. Anybody else is found by id.`,
    );
  const { id, givenName, surname } = member;
  // Only users of the caller's organization are shown by id.
  return (await get(id).catch(ifRefused)) ?? { id, email: text, givenName, surname, organizationName: null };
}

/** Nothing to see is no reason to stop. */
function ifRefused(error: unknown): undefined {
  if (!(error instanceof ExitError) || error.exitCode !== exitCodes.refused) throw error;
}
