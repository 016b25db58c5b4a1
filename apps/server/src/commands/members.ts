import { Command } from 'commander';
import { texts } from './arguments.ts';
import { Connection } from './connection.ts';
import { iTwinIdOf, namedIn } from './names.ts';
import { printDone, printList, printObject, type Column } from './output.ts';
import {
  confirm,
  listCommand,
  resourceCommand,
  withCommands,
  withConfirmation,
  type ResourceOptions,
} from './resource.ts';
import { onITwin, roleNamed, rolesOf } from './roles.ts';

interface Member {
  id: string;
  email: string | null;
  givenName: string | null;
  surname: string | null;
  roles: { id: string; displayName: string }[];
}

const columns: Column<Member>[] = [
  { title: 'ID', of: ({ id }) => id },
  { title: 'E-MAIL', of: ({ email }) => email },
  { title: 'NAME', of: ({ givenName, surname }) => [givenName, surname].filter(Boolean).join(' ') },
  { title: 'ROLES', of: ({ roles }) => roles.map(({ displayName }) => displayName).join(', ') },
];

interface MemberOptions extends ResourceOptions {
  itwin: string;
}

/** `offshoot members`: the members of an iTwin and their roles. */
export function membersCommand(): Command {
  const withRoles = (command: Command, what: string) =>
    command
      .argument('<user>', 'e-mail or id')
      .requiredOption('--role <name or id>', `${what}; may be given several times`, texts);
  return withCommands(
    new Command('members').description('List, add, change and remove the members of an iTwin.'),
    onITwin(listCommand('List the members of an iTwin and their roles.')).action(list),
    withRoles(onITwin(resourceCommand('add', 'Add a user to an iTwin.')), 'role of the member').action(add),
    withRoles(
      onITwin(resourceCommand('update', 'Replace the roles of a member.')),
      'role of the member from now on',
    ).action(update),
    withConfirmation(
      onITwin(resourceCommand('remove', 'Remove a member from an iTwin.')).argument('<user>', 'e-mail or id'),
    ).action(remove),
  );
}

const address = (iTwinId: string, userId?: string): string =>
  `/accesscontrol/itwins/${iTwinId}/members/users${userId === undefined ? '' : `/${encodeURIComponent(userId)}`}`;

async function membersOf(connection: Connection, iTwinId: string): Promise<Member[]> {
  return connection.all<Member>(`${address(iTwinId)}?$top=1000`, 'members');
}

async function memberOf(connection: Connection, iTwinId: string, text: string): Promise<Member> {
  return namedIn('member', await membersOf(connection, iTwinId), ({ email, id }) => email ?? id, text);
}

async function roleIdsOf(connection: Connection, iTwinId: string, names: readonly string[]): Promise<string[]> {
  const roles = await rolesOf(connection, iTwinId);
  return names.map((name) => roleNamed(roles, name).id);
}

async function list(options: MemberOptions): Promise<void> {
  const connection = await Connection.open(options);
  printList(await membersOf(connection, await iTwinIdOf(connection, options.itwin)), columns, options);
}

async function add(user: string, options: MemberOptions & { role: string[] }): Promise<void> {
  const connection = await Connection.open(options);
  const iTwinId = await iTwinIdOf(connection, options.itwin);
  const roleIds = await roleIdsOf(connection, iTwinId, options.role);
  const { body } = await connection.request('POST', address(iTwinId), {
    members: [{ ...(user.includes('@') ? { email: user } : { userId: user }), roleIds }],
  });
  printList((body as { members: Member[] }).members, columns, options);
}

async function update(user: string, options: MemberOptions & { role: string[] }): Promise<void> {
  const connection = await Connection.open(options);
  const iTwinId = await iTwinIdOf(connection, options.itwin);
  const { id } = await memberOf(connection, iTwinId, user);
  const { body } = await connection.request('PATCH', address(iTwinId, id), {
    roleIds: await roleIdsOf(connection, iTwinId, options.role),
  });
  printObject((body as { member: Member }).member, columns, options);
}

async function remove(user: string, options: MemberOptions & { yes?: boolean }): Promise<void> {
  const connection = await Connection.open(options);
  const iTwinId = await iTwinIdOf(connection, options.itwin);
  const { id, email } = await memberOf(connection, iTwinId, user);
  await confirm(`Remove '${email ?? id}' from the iTwin?`, options);
  await connection.request('DELETE', address(iTwinId, id));
  printDone({ id, deleted: true }, `removed ${id}`, options);
}
