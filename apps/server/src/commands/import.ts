import { readdirSync, readFileSync, realpathSync, statSync, type Stats } from 'node:fs';
import path from 'node:path';
import { Command } from 'commander';
import { Type, type Static } from '../jsonSchema.ts';
import { firstBriefcaseId, lastBriefcaseId } from '../briefcases/counter.ts';
import { ChangesetFileError } from '../changesets/changesetId.ts';
import { readChangesetFile, type ChangesetContents } from '../changesets/localFile.ts';
import { importIModel, type Imported, type Source } from './importIModel.ts';
import { Connection, withConnection, type ConnectionOptions } from './connection.ts';
import { exitCodes, ExitError } from './exit.ts';
import { targetITwinOf } from './names.ts';
import { settleModelFile, type UploadableFile } from './localBaseline.ts';
import type { SourceChangeset } from './preparedAhead.ts';
import { progressBar } from './progress.ts';
import { expectShape } from './shape.ts';
import { countText } from '../terminal.ts';

interface ImportOptions extends ConnectionOptions {
  itwin?: string;
  name?: string;
  description?: string;
  json?: boolean;
}

const Nullable = <T extends ReturnType<typeof Type.String>>(schema: T) => Type.Union([schema, Type.Null()]);
const ChangesetId = Type.String({ pattern: '^[0-9a-fA-F]{40}$' });

/** An entry of `changesets.json`. Names and limits are those of the API. */
const ListedChangeset = Type.Object({
  id: ChangesetId,
  parentId: Type.Optional(Type.Union([ChangesetId, Type.Literal(''), Type.Null()])),
  index: Type.Optional(Type.Integer({ minimum: 1 })),
  description: Type.Optional(Nullable(Type.String({ maxLength: 255 }))),
  containingChanges: Type.Optional(Type.Union([Type.Integer({ minimum: 0, maximum: 2_147_483_647 }), Type.Null()])),
  briefcaseId: Type.Optional(Type.Union([Type.Integer({ minimum: 0, maximum: lastBriefcaseId - 1 }), Type.Null()])),
  synchronizationInfo: Type.Optional(
    Type.Union([
      Type.Object({
        taskId: Type.String({ minLength: 1, maxLength: 255 }),
        changedFiles: Type.Optional(
          Type.Union([Type.Array(Type.String({ maxLength: 1000 }), { maxItems: 1000 }), Type.Null()]),
        ),
      }),
      Type.Null(),
    ]),
  ),
  fileSize: Type.Optional(Type.Integer({ minimum: 0 })),
  size: Type.Optional(Type.Integer({ minimum: 0 })),
  fileName: Type.Optional(Type.String({ minLength: 1 })),
  file: Type.Optional(Type.String({ minLength: 1 })),
});
const ChangesetList = Type.Array(ListedChangeset);
const requireEntries = expectShape(ChangesetList, exitCodes.usage);

type ListedChangeset = Static<typeof ListedChangeset>;

/** A listed changeset with the path of its file, which is not read yet. */
interface FoundChangeset {
  listed: ListedChangeset;
  id: string;
  parentId: string;
  path: string;
  stats: Stats;
}

/** `offshoot import`: creates an iModel from local files. */
export function importCommand(): Command {
  return withConnection(new Command('import'))
    .description(
      'Create an iModel from files: a baseline, or a folder with a baseline and changesets. Run the command again to resume.',
    )
    .argument(
      '<path>',
      'FILE.bim; or a folder with one .bim file, changesets.json ([{id, parentId, fileName, briefcaseId, …}]) and the files that it names',
    )
    .option('--itwin <name or id>', 'iTwin that will hold the iModel; by default your only one')
    .option('--name <name>', 'name of the iModel; by default the name of the file or folder')
    .option('--description <text>', 'description of the iModel')
    .option('--json', 'print one JSON object and no progress')
    .action(async (given: string, options: ImportOptions) => {
      const show = options.json !== true;
      const { source, remove } = await readSource(given, options, show);
      try {
        const connection = await Connection.open(options, { waitsForRateLimit: true });
        printImported(
          await importIModel(connection, await targetITwinOf(connection, options.itwin), source, show),
          !show,
        );
      } finally {
        remove();
      }
    });
}

/** Prints the result of an import. */
export function printImported({ id, created, pushed, changesets }: Imported, json: boolean): void {
  const text = `${id}\n  ${created ? 'created' : 'was there'}, ${countText(pushed, 'changeset')} pushed, ${changesets} in all\n`;
  process.stdout.write(json ? `${JSON.stringify({ id, created, pushed, changesets })}\n` : text);
}

/** Reads and checks all files before anything is sent to the server, because no operation removes a changeset. */
async function readSource(
  given: string,
  options: ImportOptions,
  show: boolean,
): Promise<{ source: Source; remove: () => void }> {
  const about = statSync(given, { throwIfNoEntry: false });
  if (about === undefined) throw new ExitError(exitCodes.usage, `no file or folder at ${path.resolve(given)}`);
  const file = about.isDirectory() ? onlyBaseline(given) : given;
  if (!statSync(file).isFile()) throw new ExitError(exitCodes.usage, `${path.resolve(file)} is not a file`);
  const found = about.isDirectory() ? listedIn(given) : [];
  const { changesets, highest } = await readChangesets(found, show);
  const baseline: UploadableFile = settleModelFile(file);
  if (baseline.note !== undefined) note(baseline.note);
  return {
    remove: baseline.remove,
    source: {
      name: options.name ?? path.basename(path.resolve(given)).replace(/\.i?bim$/i, ''),
      description: options.description ?? null,
      extent: null,
      baseline: async () => baseline.path,
      ids: changesets.map(({ id }) => id),
      minimumBriefcaseId: Math.max(firstBriefcaseId, highest + 1),
      async *changesets(afterIndex) {
        yield* changesets.slice(afterIndex);
      },
    },
  };
}

function note(text: string): void {
  process.stderr.write(`note: ${text}\n`);
}

function onlyBaseline(folder: string): string {
  const files = readdirSync(folder).filter((name) => /\.i?bim$/i.test(name));
  if (files.length !== 1)
    throw new ExitError(
      exitCodes.usage,
      `${path.resolve(folder)} holds ${files.length} .bim files; one is needed, the baseline`,
    );
  return requireInside(folder, path.join(folder, files[0] as string));
}

/**
 * Checks a file of the imported folder. The folder may come from someone else, so a name or symbolic link in it must
 * not make the command upload other files of the user.
 * @throws ExitError usage when it is outside the folder, or not a file
 */
function requireInside(folder: string, file: string): string {
  if (!isInside(realpathSync(file), realpathSync(folder)))
    throw new ExitError(exitCodes.usage, `${path.relative(folder, file)} links to a file outside the folder`);
  if (!statSync(file).isFile()) throw new ExitError(exitCodes.usage, `${path.resolve(file)} is not a file`);
  return file;
}

function isInside(place: string, root: string): boolean {
  return place.startsWith(root.endsWith(path.sep) ? root : `${root}${path.sep}`);
}

/** The changesets of a folder in order, each with its file. Checks that they form one chain. */
function listedIn(folder: string): FoundChangeset[] {
  const list = path.join(folder, 'changesets.json');
  const present = changesetFilesIn(folder);
  if (statSync(list, { throwIfNoEntry: false }) === undefined) {
    if (present.length > 0)
      throw new ExitError(
        exitCodes.usage,
        `${path.resolve(folder)} holds changesets (${present[0]}), but no changesets.json that lists them`,
      );
    return [];
  }
  const entries = readList(requireInside(folder, list));
  const indexed = entries.filter(({ index }) => index !== undefined).length;
  if (indexed > 0 && indexed < entries.length)
    throw new ExitError(exitCodes.usage, 'changesets.json: some changesets have an index and some have none');
  const ordered = indexed === 0 ? entries : [...entries].sort((a, b) => (a.index as number) - (b.index as number));
  const ids = new Set<string>();
  const found = ordered.map((listed, n): FoundChangeset => {
    const id = listed.id.toLowerCase();
    const refuse = (why: string): ExitError =>
      new ExitError(exitCodes.usage, `changesets.json: changeset ${id} ${why}`);
    if (ids.has(id)) throw refuse('is listed twice');
    ids.add(id);
    const parentId = ordered[n - 1]?.id.toLowerCase() ?? '';
    if (listed.parentId !== undefined && (listed.parentId ?? '').toLowerCase() !== parentId)
      throw refuse(`does not follow ${parentId || 'the baseline'}`);
    if (listed.index !== undefined && listed.index !== n + 1)
      throw refuse(`has the index ${listed.index} where ${n + 1} is next`);
    const file = fileOf(folder, listed, refuse);
    const stats = statSync(file);
    for (const size of [listed.fileSize, listed.size])
      if (size !== undefined && size !== stats.size)
        throw refuse(`is listed with ${size} bytes, its file has ${stats.size}`);
    return { listed, id, parentId, path: file, stats };
  });
  const used = new Set(found.map((changeset) => path.relative(folder, changeset.path)));
  const unlisted = present.filter((name) => !used.has(name));
  if (unlisted.length > 0)
    note(`not listed in changesets.json and not imported: ${unlisted.length} changeset files, such as ${unlisted[0]}`);
  return found;
}

function readList(list: string): ListedChangeset[] {
  let parsed: unknown;
  try {
    // Strips a byte order mark, and rejects bytes that are not UTF-8 instead of replacing them.
    parsed = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(readFileSync(list)));
  } catch (error) {
    throw new ExitError(exitCodes.usage, `${path.resolve(list)} is not valid JSON`, error);
  }
  // One schema for each form: for a union, the first error would refer to the other form.
  if (Array.isArray(parsed)) return requireEntries(parsed, 'changesets.json');
  const { changesets } = (parsed ?? {}) as { changesets?: unknown };
  if (Array.isArray(changesets)) return requireEntries(changesets, 'changesets.json');
  throw new ExitError(
    exitCodes.usage,
    'changesets.json: it must be a list of changesets, or an object with the list `changesets`',
  );
}

function fileOf(folder: string, listed: ListedChangeset, refuse: (why: string) => ExitError): string {
  const name = listed.fileName ?? listed.file ?? `${listed.id}.cs`;
  const file = [path.resolve(folder, name), path.resolve(folder, 'changesets', name)].find(
    (place) => statSync(place, { throwIfNoEntry: false })?.isFile() === true,
  );
  if (path.isAbsolute(name) || !isInside(path.resolve(folder, name), path.resolve(folder)))
    throw refuse(`names a file outside the folder: ${name}`);
  if (file === undefined)
    throw new ExitError(exitCodes.usage, `the file of changeset ${listed.id} is missing: ${name}`);
  if (!isInside(realpathSync(file), realpathSync(folder))) throw refuse(`names a file outside the folder: ${name}`);
  return file;
}

function changesetFilesIn(folder: string): string[] {
  return ['', 'changesets'].flatMap((sub) => {
    const place = path.join(folder, sub);
    if (statSync(place, { throwIfNoEntry: false })?.isDirectory() !== true) return [];
    return readdirSync(place)
      .filter((name) => /\.cs$/i.test(name))
      .map((name) => path.join(sub, name));
  });
}

/**
 * Reads every file, verifies its id, and determines the briefcase that made it: from the list if it is given there,
 * otherwise from the elements that the changeset inserts.
 * @returns the changesets, and the highest briefcase id in the list or in any element id
 */
async function readChangesets(
  found: readonly FoundChangeset[],
  show: boolean,
): Promise<{ changesets: SourceChangeset[]; highest: number }> {
  const bar =
    found.length === 0 ? undefined : progressBar('checking [{bar}] {value}/{total} changesets, {eta} s left', show);
  bar?.start(found.length, 0);
  let highest = 0;
  let unknown = 0;
  const changesets: SourceChangeset[] = [];
  try {
    for (const { listed, id, parentId, path: file, stats } of found) {
      const contents = await readContents(file, id, parentId, listed.briefcaseId == null);
      const made = [...(contents.briefcases ?? [])];
      // If it inserts elements of several briefcases, its own briefcase is unknown, but their ids are in use.
      const briefcaseId = listed.briefcaseId ?? (made.length === 1 ? made[0] : undefined) ?? null;
      if (briefcaseId === null) unknown++;
      highest = Math.max(highest, briefcaseId ?? 0, ...made);
      changesets.push({
        id,
        parentId,
        description: listed.description ?? null,
        containingChanges: listed.containingChanges ?? 0,
        synchronizationInfo: listed.synchronizationInfo ?? null,
        briefcaseId,
        fileSize: stats.size,
        file: async () => {
          const now = statSync(file, { throwIfNoEntry: false });
          if (now?.size !== stats.size || now.mtimeMs !== stats.mtimeMs)
            throw new ExitError(exitCodes.failed, `the file of changeset ${id} changed during the import`);
          return file;
        },
      });
      bar?.increment();
    }
  } finally {
    bar?.stop();
  }
  if (unknown > 0)
    note(
      `for ${countText(unknown, 'changeset')} neither changesets.json nor the created elements tell the briefcase that made them; they are kept under the importer's own`,
    );
  return { changesets, highest };
}

async function readContents(
  file: string,
  id: string,
  parentId: string,
  briefcases: boolean,
): Promise<ChangesetContents> {
  let contents: ChangesetContents;
  try {
    contents = await readChangesetFile(file, parentId, { briefcases });
  } catch (error) {
    throw error instanceof ChangesetFileError
      ? new ExitError(exitCodes.usage, `changeset ${id} is damaged: ${error.message}`, error)
      : error;
  }
  if (contents.id !== id)
    throw new ExitError(
      exitCodes.usage,
      `changeset ${id} is damaged, or does not follow ${parentId || 'the baseline'}: its file gives the id ${contents.id}`,
    );
  return contents;
}
