import { Command, Option } from 'commander';
import { nameText } from './arguments.ts';
import { Connection } from './connection.ts';
import { iTwinIdOf } from './names.ts';
import { printDone, printList, printObject, timeText, type Column } from './output.ts';
import {
  confirm,
  listCommand,
  resourceCommand,
  withCommands,
  withConfirmation,
  type ResourceOptions,
} from './resource.ts';

interface ITwin {
  id: string;
  displayName: string;
  number: string;
  class: string;
  subClass: string;
  type: string | null;
  status: string;
  dataCenterLocation: string;
  parentId: string | null;
  createdDateTime: string;
}

const columns: Column<ITwin>[] = [
  { title: 'ID', of: ({ id }) => id },
  { title: 'NAME', of: ({ displayName }) => displayName },
  { title: 'KIND', of: ({ subClass }) => subClass },
  { title: 'STATUS', of: ({ status }) => status },
];
const details: Column<ITwin>[] = [
  ...columns,
  { title: 'NUMBER', of: ({ number }) => number },
  { title: 'TYPE', of: ({ type }) => type },
  { title: 'DATA CENTER', of: ({ dataCenterLocation }) => dataCenterLocation },
  { title: 'PARENT', of: ({ parentId }) => parentId },
  { title: 'CREATED', of: ({ createdDateTime }) => timeText(createdDateTime) },
];

const classOf: Record<string, string> = {
  Project: 'Endeavor',
  Program: 'Endeavor',
  WorkPackage: 'Endeavor',
  Asset: 'Thing',
  Portfolio: 'Thing',
};

interface CreateOptions extends ResourceOptions {
  kind: string;
  number?: string;
  type?: string;
  parent?: string;
  dataCenter?: string;
}

/** `offshoot itwins`: the iTwins that the caller may see. */
export function iTwinsCommand(): Command {
  return withCommands(
    new Command('itwins').description('List, create, show and delete iTwins.'),
    listCommand('List the iTwins that you can access.')
      .option('--search <text>', 'part of name or number')
      .option('--inactive', 'inactive ones too')
      .action(list),
    resourceCommand('create', 'Create an iTwin. You become its owner.')
      .argument('<name>', 'name of the iTwin', nameText)
      .addOption(new Option('--kind <kind>', 'kind of the iTwin').choices(Object.keys(classOf)).default('Project'))
      .option('--number <text>', 'number; its id by default')
      .option('--type <text>', 'type, a text of your own')
      .option('--parent <name or id>', 'iTwin above it')
      .option('--data-center <name>', 'data center; that of the installation by default')
      .action(create),
    resourceCommand('show', 'Show an iTwin.').argument('<iTwin>', 'name or id').action(show),
    withConfirmation(resourceCommand('delete', 'Delete an iTwin and all its iModels.'))
      .argument('<iTwin>', 'name or id')
      .action(remove),
  );
}

async function list(options: ResourceOptions & { search?: string; inactive?: boolean }): Promise<void> {
  const connection = await Connection.open(options);
  const query = new URLSearchParams({
    $orderBy: 'displayName',
    ...(options.search !== undefined && { $search: options.search }),
    ...(options.inactive === true && { includeInactive: 'true' }),
  });
  printList(await connection.all<ITwin>(`/itwins?${query.toString()}`, 'iTwins'), columns, options);
}

async function create(displayName: string, options: CreateOptions): Promise<void> {
  const connection = await Connection.open(options);
  const { body } = await connection.request('POST', '/itwins', {
    displayName,
    class: classOf[options.kind],
    subClass: options.kind,
    ...(options.number !== undefined && { number: options.number }),
    ...(options.type !== undefined && { type: options.type }),
    ...(options.parent !== undefined && { parentId: await iTwinIdOf(connection, options.parent) }),
    ...(options.dataCenter !== undefined && { dataCenterLocation: options.dataCenter }),
  });
  printObject((body as { iTwin: ITwin }).iTwin, details, options);
}

async function show(iTwin: string, options: ResourceOptions): Promise<void> {
  const connection = await Connection.open(options);
  const { body } = await connection.request('GET', `/itwins/${await iTwinIdOf(connection, iTwin)}`);
  printObject((body as { iTwin: ITwin }).iTwin, details, options);
}

async function remove(iTwin: string, options: ResourceOptions & { yes?: boolean }): Promise<void> {
  const connection = await Connection.open(options);
  const id = await iTwinIdOf(connection, iTwin);
  await confirm(`Delete iTwin '${iTwin}' (${id}) and all its iModels?`, options);
  await connection.request('DELETE', `/itwins/${id}`);
  printDone({ id, deleted: true }, `deleted ${id}`, options);
}
