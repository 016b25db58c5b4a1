import { Command, Option } from 'commander';
import { futureTime, nameText } from './arguments.ts';
import { Connection } from './connection.ts';
import { iModelIdOf, namedIn, withIModel } from './names.ts';
import { printDone, printList, printObject, timeText, type Column } from './output.ts';
import { listCommand, resourceCommand, withCommands, type ResourceOptions } from './resource.ts';

interface Share {
  id: string;
  name: string;
  expiresAt: string;
  permission: string;
  creatorId: string;
  /** Only in the answer to its creation. */
  shareKey?: string;
}

const columns: Column<Share>[] = [
  { title: 'ID', of: ({ id }) => id },
  { title: 'NAME', of: ({ name }) => name },
  { title: 'PERMISSION', of: ({ permission }) => permission },
  { title: 'EXPIRES', of: ({ expiresAt }) => timeText(expiresAt) },
];

interface ShareOptions extends ResourceOptions {
  itwin?: string;
}
interface CreateOptions extends ShareOptions {
  name: string;
  expires: number;
  permission: string;
}

/** `offshoot shares`: keys with which anyone can view an iModel. */
export function sharesCommand(): Command {
  return withCommands(
    new Command('shares').description(
      'List, create and revoke the shares of an iModel: keys with which anyone can view it.',
    ),
    withIModel(listCommand('List your shares of an iModel; administrators see all.')).action(list),
    withIModel(resourceCommand('create', 'Create a share. Its key is printed once.'))
      .requiredOption('--name <name>', 'name of the share', nameText)
      .requiredOption(
        '--expires <time>',
        'end: 30d, 12h, a date or a date with time; six months away at most',
        futureTime,
      )
      .addOption(
        new Option('--permission <name>', 'what its holder may do')
          .choices(['imodels_webview', 'imodels_read'])
          .default('imodels_read'),
      )
      .action(create),
    withIModel(resourceCommand('revoke', 'Revoke a share: its key and all links made with it become invalid.'))
      .argument('<share>', 'name or id')
      .action(revoke),
  );
}

async function sharesOf(connection: Connection, iModelId: string): Promise<Share[]> {
  return connection.all<Share>(`/imodels/${iModelId}/shares?$top=1000`, 'shares');
}

async function list(iModel: string, options: ShareOptions): Promise<void> {
  const connection = await Connection.open(options);
  printList(await sharesOf(connection, await iModelIdOf(connection, iModel, options.itwin)), columns, options);
}

async function create(iModel: string, options: CreateOptions): Promise<void> {
  const connection = await Connection.open(options);
  const { body } = await connection.request(
    'POST',
    `/imodels/${await iModelIdOf(connection, iModel, options.itwin)}/shares`,
    {
      name: options.name,
      permission: options.permission,
      expiresAt: new Date(options.expires).toISOString(),
    },
  );
  printObject(
    (body as { share: Share }).share,
    [...columns, { title: 'KEY', of: ({ shareKey }) => shareKey }],
    options,
  );
}

async function revoke(iModel: string, share: string, options: ShareOptions): Promise<void> {
  const connection = await Connection.open(options);
  const iModelId = await iModelIdOf(connection, iModel, options.itwin);
  const { id } = namedIn('share', await sharesOf(connection, iModelId), ({ name }) => name, share);
  await connection.request('DELETE', `/imodels/${iModelId}/shares/${id}`);
  printDone({ id, deleted: true }, `revoked ${id}`, options);
}
