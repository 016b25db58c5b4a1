import { Command } from 'commander';
import { nameText } from './arguments.ts';
import { Connection } from './connection.ts';
import {
  changesetIdOf,
  iModelIdOf,
  newestChangeset,
  requireOneChangeset,
  selectedChangeset,
  withChangeset,
  withIModel,
  type ChangesetOptions,
} from './names.ts';
import { printList, printObject, timeText, type Column } from './output.ts';
import { listCommand, resourceCommand, withCommands, type ResourceOptions } from './resource.ts';

interface NamedVersion {
  id: string;
  name: string;
  description: string | null;
  changesetId: string | null;
  changesetIndex: number;
  state: string;
  createdDateTime: string;
}

const columns: Column<NamedVersion>[] = [
  { title: 'CHANGESET', of: ({ changesetIndex }) => changesetIndex },
  { title: 'NAME', of: ({ name }) => name },
  { title: 'CREATED', of: ({ createdDateTime }) => timeText(createdDateTime) },
  { title: 'STATE', of: ({ state }) => state },
  { title: 'ID', of: ({ id }) => id },
];
const details: Column<NamedVersion>[] = [...columns, { title: 'DESCRIPTION', of: ({ description }) => description }];

interface CreateOptions extends ResourceOptions, ChangesetOptions {
  itwin?: string;
  description?: string;
}

/** `offshoot versions`: the named versions of an iModel. */
export function versionsCommand(): Command {
  return withCommands(
    new Command('versions').description('List and create the named versions of an iModel.'),
    withIModel(listCommand('List named versions by changeset, hidden ones included.')).action(list),
    withChangeset(
      withIModel(resourceCommand('create', 'Name a changeset of an iModel, or its baseline.'))
        .argument('<name>', 'name of the version', nameText)
        .option('--description <text>', 'description'),
      'to name; the newest by default',
    ).action(create),
  );
}

async function list(iModel: string, options: ResourceOptions & { itwin?: string }): Promise<void> {
  const connection = await Connection.open(options);
  const id = await iModelIdOf(connection, iModel, options.itwin);
  const address = `/imodels/${id}/namedversions?$top=1000&$orderBy=changesetIndex`;
  printList(await connection.all<NamedVersion>(address, 'namedVersions'), columns, options);
}

async function create(iModel: string, name: string, options: CreateOptions): Promise<void> {
  requireOneChangeset(options);
  const connection = await Connection.open(options);
  const id = await iModelIdOf(connection, iModel, options.itwin);
  const selected = await selectedChangeset(connection, id, options);
  const changesetId =
    selected === undefined
      ? ((await newestChangeset(connection, id))?.id ?? null)
      : await changesetIdOf(connection, id, selected);
  const { body } = await connection.request('POST', `/imodels/${id}/namedversions`, {
    name,
    changesetId,
    ...(options.description !== undefined && { description: options.description }),
  });
  printObject((body as { namedVersion: NamedVersion }).namedVersion, details, options);
}
