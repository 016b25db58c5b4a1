import { Command } from 'commander';
import pMap from 'p-map';
import { timeoutOption } from './arguments.ts';
import { requestCheckpoint, type Checkpoint } from './checkpointFiles.ts';
import { Connection } from './connection.ts';
import {
  iModelIdOf,
  newestChangeset,
  requireOneChangeset,
  selectedChangeset,
  withChangeset,
  withIModel,
  type ChangesetOptions,
} from './names.ts';
import { bytesText, printList, printObject, type Column } from './output.ts';
import { progressBar } from './progress.ts';
import { listCommand, resourceCommand, withCommands, type ResourceOptions } from './resource.ts';

/** Requests at a time for the checkpoints of a list. */
const reads = 8;

const columns: Column<Checkpoint>[] = [
  { title: 'CHANGESET', of: ({ changesetIndex }) => changesetIndex },
  { title: 'STATE', of: ({ state }) => state },
  { title: 'SIZE', of: ({ size, state }) => (state === 'successful' ? bytesText(size) : null) },
  { title: 'ID', of: ({ changesetId }) => changesetId ?? '(baseline)' },
  { title: 'REASON', of: ({ failureReason }) => failureReason },
];

interface MakeOptions extends ResourceOptions, ChangesetOptions {
  itwin?: string;
  wait: boolean;
  timeout: number;
}

/** `offshoot checkpoints`: complete files of an iModel at single changesets. */
export function checkpointsCommand(): Command {
  return withCommands(
    new Command('checkpoints').description('List and make the checkpoints of an iModel.'),
    withIModel(
      listCommand(
        'List the checkpoints that are available, and the states of those of named versions and the newest changeset.',
      ),
    ).action(list),
    withChangeset(
      withIModel(resourceCommand('make', 'Make the checkpoint of a changeset, and wait until it is available.')),
      'to make it of; the newest by default',
    )
      .option('--no-wait', 'return as soon as it is scheduled')
      .addOption(timeoutOption('maximum time to wait', 600))
      .action(make),
  );
}

/** The API has no list of checkpoints, but every changeset links to the one before it. */
async function list(iModel: string, options: ResourceOptions & { itwin?: string }): Promise<void> {
  const connection = await Connection.open(options);
  const id = await iModelIdOf(connection, iModel, options.itwin);
  const indexes = new Set<number>([0]);
  const bar = progressBar('reading changesets: {value}', options.json !== true);
  bar?.start(0, 0);
  let newest = 0;
  try {
    const changesets = connection.list<{
      index: number;
      _links: { currentOrPrecedingCheckpoint: { href: string } | null };
    }>(`/imodels/${id}/changesets?$top=1000`, 'changesets');
    for await (const { index, _links } of changesets) {
      newest = index;
      const linked = /\/changesets\/(\d+)\/checkpoint$/.exec(_links.currentOrPrecedingCheckpoint?.href ?? '')?.[1];
      if (linked !== undefined) indexes.add(Number(linked));
      bar?.update(index);
    }
  } finally {
    bar?.stop();
  }
  indexes.add(newest);
  const versions = connection.list<{ changesetIndex: number }>(
    `/imodels/${id}/namedversions?$top=1000`,
    'namedVersions',
    {
      prefer: 'minimal',
    },
  );
  for await (const { changesetIndex } of versions) indexes.add(changesetIndex);
  const found = await pMap(
    [...indexes].toSorted((a, b) => a - b),
    async (index) =>
      (
        (await connection.request('GET', `/imodels/${id}/changesets/${index}/checkpoint`)).body as {
          checkpoint: Checkpoint;
        }
      ).checkpoint,
    { concurrency: reads },
  );
  printList(found.map(withoutAccess), columns, options);
}

async function make(iModel: string, options: MakeOptions): Promise<void> {
  requireOneChangeset(options);
  const connection = await Connection.open(options);
  const id = await iModelIdOf(connection, iModel, options.itwin);
  const changeset =
    (await selectedChangeset(connection, id, options)) ?? String((await newestChangeset(connection, id))?.index ?? 0);
  const checkpoint = options.wait
    ? await requestCheckpoint(connection, id, changeset, { timeoutMs: options.timeout, show: options.json !== true })
    : (
        (await connection.request('PUT', `/imodels/${id}/changesets/${changeset}/checkpoint`)).body as {
          checkpoint: Checkpoint;
        }
      ).checkpoint;
  printObject(withoutAccess(checkpoint), columns, options);
}

/** Without links and tokens, which would otherwise remain in logs: they give access to the file. */
function withoutAccess({ changesetIndex, changesetId, state, size, progress, failureReason }: Checkpoint): Checkpoint {
  return { changesetIndex, changesetId, state, size, progress, failureReason, _links: { download: null } };
}
