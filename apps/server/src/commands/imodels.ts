import { Command } from 'commander';
import path from 'node:path';
import { nameText, timeoutOption } from './arguments.ts';
import { Connection } from './connection.ts';
import { exitCodes, ExitError } from './exit.ts';
import { follow } from './follow.ts';
import { downloadCheckpoint, requestCheckpoint, requireAbsent, type Checkpoint } from './checkpointFiles.ts';
import {
  changesetIdOf,
  iModelIdOf,
  iTwinIdOf,
  targetITwinOf,
  newestChangeset,
  requireOneChangeset,
  selectedChangeset,
  withChangeset,
  withIModel,
  type ChangesetOptions,
} from './names.ts';
import { bytesText, printDone, printObject, timeText, type Column } from './output.ts';
import {
  confirm,
  listCommand,
  resourceCommand,
  withCommands,
  withConfirmation,
  type ResourceOptions,
} from './resource.ts';

interface ListedITwin {
  id: string;
  displayName: string;
}
interface IModel {
  id: string;
  name: string;
  description: string | null;
  state: string;
  createdDateTime: string;
  lastChangesetPushDateTime: string | null;
  iTwinId: string;
  dataCenterLocation: string;
}

const details: Column<IModel>[] = [
  { title: 'ID', of: ({ id }) => id },
  { title: 'NAME', of: ({ name }) => name },
  { title: 'DESCRIPTION', of: ({ description }) => description },
  { title: 'STATE', of: ({ state }) => state },
  { title: 'ITWIN', of: ({ iTwinId }) => iTwinId },
  { title: 'DATA CENTER', of: ({ dataCenterLocation }) => dataCenterLocation },
  { title: 'CREATED', of: ({ createdDateTime }) => timeText(createdDateTime) },
  { title: 'LAST PUSH', of: ({ lastChangesetPushDateTime }) => timeText(lastChangesetPushDateTime) },
];

interface CreateOptions extends ResourceOptions, ChangesetOptions {
  itwin?: string;
  description?: string;
  template?: string;
  timeout: number;
}

interface DownloadOptions extends ResourceOptions, ChangesetOptions {
  itwin?: string;
  output?: string;
  make?: boolean;
  force?: boolean;
  timeout: number;
}

/** `offshoot imodels`: the iModels that the caller may see. */
export function imodelsCommand(): Command {
  return withCommands(
    new Command('imodels').description('List, create, show, download and delete iModels.'),
    listCommand('List the iModels of one iTwin, or of all iTwins that you can access.')
      .option('--itwin <name or id>', 'iTwin to list')
      .option('--search <text>', 'part of name or description')
      .action(list),
    withChangeset(
      resourceCommand('create', 'Create an empty iModel, or one from a template. To create one from files, use import.')
        .argument('<name>', 'name of the iModel', nameText)
        .option('--itwin <name or id>', 'iTwin to create it in; by default your only one')
        .option('--description <text>', 'description')
        .option('--template <name or id>', 'iModel to begin with, as a new baseline without history')
        .addOption(timeoutOption('maximum time to wait for a template', 300)),
      'of the template to begin with; the newest by default',
    ).action(create),
    withIModel(resourceCommand('show', 'Show an iModel.')).action(show),
    withChangeset(
      withIModel(resourceCommand('download', 'Download an iModel as a file, at any changeset that has a checkpoint.')),
      'to download; the newest by default',
    )
      .option('--output <file>', 'file to write; by default the name of the iModel, in this folder')
      .option('--make', 'make the checkpoint first if there is none')
      .option('--force', 'overwrite an existing file')
      .addOption(timeoutOption('maximum time without a byte, and to wait for --make', 300))
      .action(download),
    withConfirmation(withIModel(resourceCommand('delete', 'Delete an iModel. Its clones stay as they are.'))).action(
      remove,
    ),
  );
}

async function list(options: ResourceOptions & { itwin?: string; search?: string }): Promise<void> {
  const connection = await Connection.open(options);
  const iTwins =
    options.itwin === undefined
      ? await connection.all<ListedITwin>('/itwins', 'iTwins')
      : [
          (
            (await connection.request('GET', `/itwins/${await iTwinIdOf(connection, options.itwin)}`)).body as {
              iTwin: ListedITwin;
            }
          ).iTwin,
        ];

  const found: IModel[] = [];
  for (const iTwin of iTwins) {
    const search = options.search === undefined ? '' : `&$search=${encodeURIComponent(options.search)}`;
    const iModels = await connection.all<IModel>(`/imodels?iTwinId=${iTwin.id}&$orderBy=name${search}`, 'iModels');
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

async function create(name: string, options: CreateOptions): Promise<void> {
  requireOneChangeset(options);
  if (options.template === undefined && (options.changeset ?? options.toVersion ?? options.at) !== undefined)
    throw new ExitError(exitCodes.usage, '--changeset, --to-version and --at select a changeset of the --template');
  const connection = await Connection.open(options);
  const began = performance.now();
  const template = options.template === undefined ? undefined : await templateOf(connection, options.template, options);
  const { body } = await connection.request('POST', '/imodels', {
    name,
    iTwinId: await targetITwinOf(connection, options.itwin),
    ...(options.description !== undefined && { description: options.description }),
    ...(template === undefined ? { creationMode: 'empty' } : { creationMode: 'fromiModelVersion', template }),
  });
  const { id } = (body as { iModel: IModel }).iModel;
  if (template !== undefined) {
    const address = `/imodels/${id}/operations/create`;
    const { state, failureReason } = await follow(connection, address, began + options.timeout, options.json !== true, {
      what: 'iModel',
      doing: 'creating',
    });
    if (state !== 'successful')
      throw new ExitError(exitCodes.failed, `the iModel ${id} was not created: ${failureReason ?? state}`);
  }
  printObject(await iModelOf(connection, id), details, options);
}

/** The template with its changeset; the newest one by default, because the API begins with the baseline. */
async function templateOf(connection: Connection, text: string, options: ChangesetOptions) {
  const iModelId = await iModelIdOf(connection, text);
  const selected = await selectedChangeset(connection, iModelId, options);
  const changesetId =
    selected === undefined
      ? ((await newestChangeset(connection, iModelId))?.id ?? null)
      : await changesetIdOf(connection, iModelId, selected);
  return { iModelId, ...(changesetId !== null && { changesetId }) };
}

async function iModelOf(connection: Connection, id: string): Promise<IModel> {
  return ((await connection.request('GET', `/imodels/${id}`)).body as { iModel: IModel }).iModel;
}

async function show(iModel: string, options: ResourceOptions & { itwin?: string }): Promise<void> {
  const connection = await Connection.open(options);
  printObject(await iModelOf(connection, await iModelIdOf(connection, iModel, options.itwin)), details, options);
}

async function remove(iModel: string, options: ResourceOptions & { itwin?: string; yes?: boolean }): Promise<void> {
  const connection = await Connection.open(options);
  const id = await iModelIdOf(connection, iModel, options.itwin);
  await confirm(`Delete iModel '${iModel}' (${id})?`, options);
  await connection.request('DELETE', `/imodels/${id}`);
  printDone({ id, deleted: true }, `deleted ${id}`, options);
}

async function download(iModel: string, options: DownloadOptions): Promise<void> {
  requireOneChangeset(options);
  if (options.output !== undefined && options.force !== true) requireAbsent(path.resolve(options.output));
  const connection = await Connection.open(options);
  const { id, name } = await iModelOf(connection, await iModelIdOf(connection, iModel, options.itwin));
  const changeset =
    (await selectedChangeset(connection, id, options)) ?? String((await newestChangeset(connection, id))?.index ?? 0);
  const show = options.json !== true;
  const checkpoint =
    options.make === true
      ? await requestCheckpoint(connection, id, changeset, { timeoutMs: options.timeout, show })
      : await availableCheckpoint(connection, id, changeset);
  const target = path.resolve(options.output ?? `${fileNameOf(name)}.bim`);
  await downloadCheckpoint(checkpoint, target, {
    silenceMs: options.timeout,
    overwrite: options.force === true,
    show,
  });
  const { changesetIndex, changesetId, size } = checkpoint;
  printDone(
    { iModelId: id, changesetIndex, changesetId, file: target, size },
    `${target}\n  ${changesetIndex === 0 ? 'the baseline' : `changeset ${changesetIndex}`}, ${bytesText(size)}`,
    options,
  );
}

/** @throws ExitError failed if the changeset has no checkpoint, with the nearest one before it */
async function availableCheckpoint(connection: Connection, iModelId: string, changeset: string): Promise<Checkpoint> {
  const { body } = await connection.request('GET', `/imodels/${iModelId}/changesets/${changeset}/checkpoint`);
  const { checkpoint } = body as { checkpoint: Checkpoint };
  if (checkpoint.state === 'successful') return checkpoint;
  throw new ExitError(
    exitCodes.failed,
    `changeset ${checkpoint.changesetIndex} has no checkpoint yet (${checkpoint.state}${checkpoint.failureReason === null ? '' : `: ${checkpoint.failureReason}`}): give --make to make one, or choose a changeset with one (offshoot checkpoints ${iModelId})`,
  );
}

/** A name as a file name on every platform, which must not end with a dot or a space either. */
function fileNameOf(name: string): string {
  let cleaned = name.replace(/[<>:"/\\|?*\p{Cc}]/gu, '_').slice(0, 120);
  while (cleaned.startsWith('.')) cleaned = cleaned.slice(1);
  while (/[. ]$/.test(cleaned)) cleaned = cleaned.slice(0, -1);
  return cleaned === '' ? 'iModel' : cleaned;
}
