import { readdirSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { Command } from 'commander';
import { bringIn, type Brought, type Source, type SourceChangeset } from './bringIn.ts';
import { Connection, withConnection, type ConnectionOptions } from './connection.ts';
import { exitCodes, ExitError } from './exit.ts';

interface ImportOptions extends ConnectionOptions {
  itwin: string;
  name?: string;
  description?: string;
  json?: boolean;
}

/** What `changesets.json` holds for each changeset; names as in the API. */
interface ListedChangeset {
  id: string;
  parentId?: string;
  index?: number;
  description?: string | null;
  containingChanges?: number;
  synchronizationInfo?: SourceChangeset['synchronizationInfo'];
  fileName?: string;
  file?: string;
}

/** `offshoot import`: an iModel from files. */
export function importCommand(): Command {
  return withConnection(new Command('import'))
    .description('Make an iModel of files: a baseline, or a folder with a baseline and changesets. Run again, it goes on where it ended.')
    .argument('<path>', 'FILE.bim; or a folder with one .bim file, changesets.json ([{id, parentId, fileName, …}]) and the files that it names')
    .requiredOption('--itwin <id>', 'iTwin that will hold the iModel')
    .option('--name <name>', 'name of the iModel; that of the file or folder by default')
    .option('--description <text>', 'its description')
    .option('--json', 'print one JSON object and no progress')
    .action(async (given: string, options: ImportOptions) => {
      const source = readSource(given, options);
      const connection = await Connection.open(options, true);
      printBrought(await bringIn(connection, options.itwin, source, options.json !== true), options.json === true);
    });
}

/** Tells what was brought in. */
export function printBrought({ id, created, pushed, changesets }: Brought, json: boolean): void {
  const text = `${id}\n  ${created ? 'created' : 'was there'}, ${pushed} changesets pushed, ${changesets} in all\n`;
  process.stdout.write(json ? `${JSON.stringify({ id, created, pushed, changesets })}\n` : text);
}

function readSource(given: string, options: ImportOptions): Source {
  const about = statSync(given, { throwIfNoEntry: false });
  if (about === undefined) throw new ExitError(exitCodes.usage, `there is nothing at ${path.resolve(given)}`);
  const baseline = about.isDirectory() ? onlyBaseline(given) : given;
  const changesets = about.isDirectory() ? listedIn(given) : [];
  return {
    name: options.name ?? path.basename(path.resolve(given)).replace(/\.i?bim$/i, ''),
    description: options.description ?? null,
    extent: null,
    baseline: async () => baseline,
    count: changesets.length,
    async *changesets(afterIndex) {
      yield* changesets.slice(afterIndex);
    },
  };
}

function onlyBaseline(folder: string): string {
  const files = readdirSync(folder).filter((name) => /\.i?bim$/i.test(name));
  if (files.length !== 1) throw new ExitError(exitCodes.usage, `${path.resolve(folder)} holds ${files.length} .bim files; one is needed, the baseline`);
  return path.join(folder, files[0] as string);
}

/** The changesets of a folder, checked to be one chain, in its order. */
function listedIn(folder: string): SourceChangeset[] {
  const list = path.join(folder, 'changesets.json');
  if (statSync(list, { throwIfNoEntry: false }) === undefined) return [];
  let parsed: unknown;
  try {
    parsed = JSON.parse(readFileSync(list, 'utf8'));
  } catch (error) {
    throw new ExitError(exitCodes.usage, `${path.resolve(list)} is not valid JSON`, error);
  }
  const listed = (Array.isArray(parsed) ? parsed : ((parsed as { changesets?: unknown }).changesets ?? [])) as ListedChangeset[];
  const ordered = [...listed].sort((a, b) => (a.index ?? 0) - (b.index ?? 0));
  return ordered.map((changeset, n) => {
    const parentId = ordered[n - 1]?.id ?? '';
    if (changeset.parentId !== undefined && changeset.parentId !== parentId) throw new ExitError(exitCodes.usage, `changeset ${changeset.id} does not follow ${parentId || 'the baseline'}`);
    const name = changeset.fileName ?? changeset.file ?? `${changeset.id}.cs`;
    const file = [path.join(folder, name), path.join(folder, 'changesets', name)].find((place) => statSync(place, { throwIfNoEntry: false }) !== undefined);
    if (file === undefined) throw new ExitError(exitCodes.usage, `the file of changeset ${changeset.id} is missing: ${name}`);
    return {
      id: changeset.id,
      parentId,
      description: changeset.description ?? null,
      containingChanges: changeset.containingChanges ?? 0,
      synchronizationInfo: changeset.synchronizationInfo ?? null,
      fileSize: statSync(file).size,
      file: async () => file,
    };
  });
}
