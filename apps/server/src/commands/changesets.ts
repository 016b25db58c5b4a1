import { mkdirSync, renameSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { Command } from 'commander';
import { timeoutOption, wholeNumber } from './arguments.ts';
import { requireAbsent, saveFile } from './checkpointFiles.ts';
import { Connection } from './connection.ts';
import { exitCodes, ExitError } from './exit.ts';
import {
  iModelIdOf,
  requireOneChangeset,
  selectedChangeset,
  newestChangeset,
  withChangeset,
  withIModel,
  type ChangesetOptions,
} from './names.ts';
import { bytesText, printDone, printList, printObject, timeText, type Column } from './output.ts';
import { progressBar } from './progress.ts';
import { listCommand, resourceCommand, withCommands, type ResourceOptions } from './resource.ts';
import { countText } from '../terminal.ts';

interface Changeset {
  id: string;
  index: number;
  parentId: string;
  description: string | null;
  briefcaseId: number;
  fileSize: number;
  containingChanges: number;
  pushDateTime: string;
  creatorId: string;
  application: { id: string; name: string } | null;
  synchronizationInfo: object | null;
  _links: { download?: { href: string } | null };
}

const columns: Column<Changeset>[] = [
  { title: 'INDEX', of: ({ index }) => index },
  { title: 'ID', of: ({ id }) => id },
  { title: 'PUSHED', of: ({ pushDateTime }) => timeText(pushDateTime) },
  { title: 'SIZE', of: ({ fileSize }) => bytesText(fileSize) },
  { title: 'DESCRIPTION', of: ({ description }) => description },
];
const details: Column<Changeset>[] = [
  ...columns,
  { title: 'PARENT', of: ({ parentId }) => parentId },
  { title: 'BRIEFCASE', of: ({ briefcaseId }) => briefcaseId },
  { title: 'CREATOR', of: ({ creatorId }) => creatorId },
  { title: 'APPLICATION', of: ({ application }) => application?.name },
];

/** Default of `--limit`. */
const shownByDefault = 100;

interface ListOptions extends ResourceOptions {
  itwin?: string;
  after: number;
  limit: number;
}
interface DownloadOptions extends ResourceOptions {
  itwin?: string;
  output: string;
  after: number;
  until?: number;
  force?: boolean;
  timeout: number;
}

/** `offshoot changesets`: the changesets of an iModel. */
export function changesetsCommand(): Command {
  return withCommands(
    new Command('changesets').description('List, show and download the changesets of an iModel.'),
    withIModel(listCommand('List changesets, the newest first.'))
      .option('--after <index>', 'only later ones', wholeNumber(0), 0)
      .option('--limit <number>', 'most changesets to list; 0 for all', wholeNumber(0), shownByDefault)
      .action(list),
    withChangeset(withIModel(resourceCommand('show', 'Show a changeset.')), 'to show; the newest by default').action(
      show,
    ),
    withIModel(
      resourceCommand('download', 'Download changesets into a folder with changesets.json, as import reads it.'),
    )
      .requiredOption('--output <folder>', 'folder to write to; it is created if it is missing')
      .option('--after <index>', 'only later ones', wholeNumber(0), 0)
      .option('--until <index>', 'last one; the newest by default', wholeNumber(1))
      .option('--force', 'overwrite existing files')
      .addOption(timeoutOption('maximum time without a byte', 60))
      .action(download),
  );
}

async function list(iModel: string, options: ListOptions): Promise<void> {
  const connection = await Connection.open(options);
  const id = await iModelIdOf(connection, iModel, options.itwin);
  const limit = options.limit === 0 ? Infinity : options.limit;
  const query = new URLSearchParams({
    $orderBy: 'index desc',
    $top: String(Math.min(1000, limit + 1)),
    ...(options.after > 0 && { afterIndex: String(options.after) }),
  });
  const found: Changeset[] = [];
  const address = `/imodels/${id}/changesets?${query.toString()}`;
  let more = false;
  for await (const changeset of connection.list<Changeset>(address, 'changesets', { prefer: 'minimal' })) {
    more = found.length === limit;
    if (more) break;
    found.push(changeset);
  }
  printList(found, columns, options);
  // The output would otherwise look complete.
  if (more) process.stderr.write(`offshoot: only the newest ${limit} are listed; --limit 0 lists all\n`);
}

async function show(iModel: string, options: ResourceOptions & ChangesetOptions & { itwin?: string }): Promise<void> {
  requireOneChangeset(options);
  const connection = await Connection.open(options);
  const id = await iModelIdOf(connection, iModel, options.itwin);
  const selected = (await selectedChangeset(connection, id, options)) ?? (await newestChangeset(connection, id))?.id;
  if (selected === undefined || selected === '0')
    throw new ExitError(exitCodes.refused, 'the baseline is no changeset: there is nothing to show');
  const { body } = await connection.request('GET', `/imodels/${id}/changesets/${selected}`);
  printObject((body as { changeset: Changeset }).changeset, details, options);
}

async function download(iModel: string, options: DownloadOptions): Promise<void> {
  const folder = path.resolve(options.output);
  if (statSync(folder, { throwIfNoEntry: false })?.isDirectory() === false)
    throw new ExitError(exitCodes.usage, `${folder} is a file`);
  const listFile = path.join(folder, 'changesets.json');
  if (options.force !== true) requireAbsent(listFile);
  const connection = await Connection.open(options);
  const id = await iModelIdOf(connection, iModel, options.itwin);
  mkdirSync(folder, { recursive: true });
  const query = new URLSearchParams({
    $top: '1000',
    ...(options.after > 0 && { afterIndex: String(options.after) }),
    ...(options.until !== undefined && { lastIndex: String(options.until) }),
  });
  const changesets = await connection.all<Changeset>(`/imodels/${id}/changesets?${query.toString()}`, 'changesets', {
    prefer: 'minimal',
  });
  const bar = progressBar('downloading [{bar}] {value}/{total} changesets, {eta} s left', options.json !== true);
  bar?.start(changesets.length, 0);
  const entries: object[] = [];
  try {
    // Requests each changeset just before its download: links of a long list would have expired.
    for (const { id: changesetId } of changesets) {
      const { body } = await connection.request('GET', `/imodels/${id}/changesets/${changesetId}`);
      const { changeset } = body as { changeset: Changeset };
      const fileName = `${String(changeset.index).padStart(6, '0')}_${changeset.id}.cs`;
      const link = changeset._links.download;
      if (link == null)
        throw new ExitError(exitCodes.refused, 'the server gives no download link: is imodels_read permitted?');
      const file = { url: link.href, size: changeset.fileSize, what: `changeset ${changeset.index}` };
      await saveFile(file, path.join(folder, fileName), {
        silenceMs: options.timeout,
        overwrite: options.force === true,
        show: false,
      });
      entries.push(entryOf(changeset, fileName));
      bar?.increment();
    }
  } finally {
    bar?.stop();
  }
  // Written last: a folder with a list is complete.
  writeFileSync(`${listFile}.part`, `${JSON.stringify(entries, null, 2)}\n`);
  renameSync(`${listFile}.part`, listFile);
  printDone(
    { iModelId: id, folder, changesets: entries.length },
    `${folder}\n  ${countText(entries.length, 'changeset')}`,
    options,
  );
}

/** An entry of `changesets.json`, as `offshoot import` reads it. */
function entryOf(changeset: Changeset, fileName: string): object {
  const { id, index, parentId, description, briefcaseId, fileSize, containingChanges, synchronizationInfo } = changeset;
  return { id, parentId, index, description, briefcaseId, containingChanges, synchronizationInfo, fileSize, fileName };
}
