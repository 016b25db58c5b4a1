import { Command } from 'commander';
import { listOf, nameText } from './arguments.ts';
import { Connection } from './connection.ts';
import { exitCodes, ExitError } from './exit.ts';
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
import { administrationPermissions, imodelPermissions } from '../domain.ts';

/** A role of an iTwin. */
export interface Role {
  id: string;
  displayName: string;
  description: string | null;
  permissions: string[];
}

const permissions = [...imodelPermissions, ...administrationPermissions];

const columns: Column<Role>[] = [
  { title: 'ID', of: ({ id }) => id },
  { title: 'NAME', of: ({ displayName }) => displayName },
  { title: 'PERMISSIONS', of: (role) => role.permissions.join(', ') },
];
const details: Column<Role>[] = [...columns, { title: 'DESCRIPTION', of: ({ description }) => description }];

interface RoleOptions extends ResourceOptions {
  itwin: string;
}
interface ChangeOptions extends RoleOptions {
  name?: string;
  description?: string;
  permission?: string[];
}

/** Adds the required option for the iTwin. */
export function onITwin(command: Command): Command {
  return command.requiredOption('--itwin <name or id>', 'iTwin');
}

/** `offshoot roles`: the roles of an iTwin. */
export function rolesCommand(): Command {
  const permission = (command: Command) =>
    command.option(
      '--permission <names>',
      `permissions, separated by commas: ${permissions.join(', ')}`,
      listOf(permissions),
    );
  return withCommands(
    new Command('roles').description('List, create, change and delete the roles of an iTwin.'),
    onITwin(listCommand('List the roles of an iTwin.')).action(list),
    permission(onITwin(resourceCommand('create', 'Create a role.')).argument('<name>', 'name of the role', nameText))
      .option('--description <text>', 'description')
      .action(create),
    permission(
      onITwin(resourceCommand('update', 'Change a role; permissions replace the earlier ones.')).argument(
        '<role>',
        'name or id',
      ),
    )
      .option('--name <name>', 'new name', nameText)
      .option('--description <text>', 'new description')
      .action(update),
    withConfirmation(
      onITwin(resourceCommand('delete', 'Delete a role. Members lose it.')).argument('<role>', 'name or id'),
    ).action(remove),
  );
}

/** The roles of an iTwin. */
export async function rolesOf(connection: Connection, iTwinId: string): Promise<Role[]> {
  return connection.all<Role>(`/accesscontrol/itwins/${iTwinId}/roles`, 'roles');
}

/** @throws ExitError refused if there is no such role, usage if several have the name */
export function roleNamed(roles: readonly Role[], text: string): Role {
  if (roles.length === 0)
    throw new ExitError(
      exitCodes.refused,
      `the iTwin has no roles yet. Create one: offshoot roles create '${text}' --itwin … --permission imodels_read,imodels_webview`,
    );
  return namedIn('role', roles, ({ displayName }) => displayName, text);
}

async function list(options: RoleOptions): Promise<void> {
  const connection = await Connection.open(options);
  printList(await rolesOf(connection, await iTwinIdOf(connection, options.itwin)), columns, options);
}

async function create(displayName: string, options: ChangeOptions): Promise<void> {
  const connection = await Connection.open(options);
  const iTwinId = await iTwinIdOf(connection, options.itwin);
  const { body } = await connection.request('POST', `/accesscontrol/itwins/${iTwinId}/roles`, {
    displayName,
    ...(options.description !== undefined && { description: options.description }),
    permissions: options.permission ?? [],
  });
  printObject((body as { role: Role }).role, details, options);
  if (options.permission === undefined)
    process.stderr.write(
      'This role permits nothing yet: give it permissions with offshoot roles update --permission.\n',
    );
}

async function update(role: string, options: ChangeOptions): Promise<void> {
  const connection = await Connection.open(options);
  const iTwinId = await iTwinIdOf(connection, options.itwin);
  const { id } = roleNamed(await rolesOf(connection, iTwinId), role);
  const { body } = await connection.request('PATCH', `/accesscontrol/itwins/${iTwinId}/roles/${id}`, {
    ...(options.name !== undefined && { displayName: options.name }),
    ...(options.description !== undefined && { description: options.description }),
    ...(options.permission !== undefined && { permissions: options.permission }),
  });
  printObject((body as { role: Role }).role, details, options);
}

async function remove(role: string, options: RoleOptions & { yes?: boolean }): Promise<void> {
  const connection = await Connection.open(options);
  const iTwinId = await iTwinIdOf(connection, options.itwin);
  const { id, displayName } = roleNamed(await rolesOf(connection, iTwinId), role);
  await confirm(`Delete role '${displayName}' (${id})?`, options);
  await connection.request('DELETE', `/accesscontrol/itwins/${iTwinId}/roles/${id}`);
  printDone({ id, deleted: true }, `deleted ${id}`, options);
}
