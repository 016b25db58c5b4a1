import { Command } from 'commander';
import { Connection, withConnection, type ConnectionOptions } from './connection.ts';

interface ListedITwin {
  id: string;
  displayName: string;
}
interface ListedIModel {
  id: string;
  name: string;
  state: string;
  createdDateTime: string;
  lastChangesetPushDateTime: string | null;
  iTwinId: string;
}

/** `offshoot imodels`: lists the iModels that the caller may see. */
export function imodelsCommand(): Command {
  return withConnection(new Command('imodels'))
    .description('List the iModels of one iTwin, or of all iTwins that you can access.')
    .option('--itwin <id>', 'iTwin to list')
    .option('--search <text>', 'part of name or description')
    .option('--json', 'print one JSON array')
    .action(list);
}

async function list(options: ConnectionOptions & { itwin?: string; search?: string; json?: boolean }): Promise<void> {
  const connection = await Connection.open(options);
  const iTwins: ListedITwin[] = [];
  if (options.itwin === undefined)
    for await (const iTwin of connection.list<ListedITwin>('/itwins', 'iTwins')) iTwins.push(iTwin);
  else
    iTwins.push(
      ((await connection.request('GET', `/itwins/${encodeURIComponent(options.itwin)}`)).body as { iTwin: ListedITwin })
        .iTwin,
    );

  const found: ListedIModel[] = [];
  for (const iTwin of iTwins) {
    const search = options.search === undefined ? '' : `&$search=${encodeURIComponent(options.search)}`;
    const iModels: ListedIModel[] = [];
    for await (const iModel of connection.list<ListedIModel>(
      `/imodels?iTwinId=${iTwin.id}&$orderBy=name${search}`,
      'iModels',
    ))
      iModels.push(iModel);
    found.push(...iModels);
    if (options.json === true) continue;
    process.stdout.write(`${iTwin.displayName}  ${iTwin.id}\n`);
    if (iModels.length === 0) process.stdout.write('  (no iModels)\n');
    for (const { id, name, state, lastChangesetPushDateTime } of iModels)
      process.stdout.write(
        `  ${id}  ${name}${state === 'initialized' ? '' : `  [${state}]`}${lastChangesetPushDateTime === null ? '' : `  last push ${lastChangesetPushDateTime}`}\n`,
      );
  }
  if (options.json === true) process.stdout.write(`${JSON.stringify(found)}\n`);
}
