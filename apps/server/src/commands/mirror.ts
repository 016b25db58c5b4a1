import { mkdtempSync, rmSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Command } from 'commander';
import { Type, type Static } from '../jsonSchema.ts';
import { firstBriefcaseId, lastBriefcaseId } from '../briefcases/counter.ts';
import { ChangesetFileError } from '../changesets/changesetId.ts';
import { readChangesetFile } from '../changesets/localFile.ts';
import { filtered } from '../http/outbound.ts';
import { importIModel, type Source } from './importIModel.ts';
import { Connection, withConnection, type ConnectionOptions } from './connection.ts';
import { downloadFile, type DownloadSettings } from './download.ts';
import { exitCodes, ExitError } from './exit.ts';
import { targetITwinOf } from './names.ts';
import type { SourceChangeset } from './preparedAhead.ts';
import { printImported } from './import.ts';
import { expectShape } from './shape.ts';
import { countText } from '../terminal.ts';

/**
 * Briefcase ids left free above the highest one of the source: it goes on handing out ids, and changesets that come on a later run
 * must not have been made by an id that somebody has here.
 */
const briefcaseRoom = 1000;

const defaultTimeoutSeconds = 60;

/** Changesets, and unreleased briefcases, of one iModel of another server: more than any has, and as many as memory holds. */
const mostChangesets = 1_000_000;
const mostBriefcases = 100_000;

interface MirrorOptions extends ConnectionOptions {
  itwin?: string;
  name?: string;
  sourceToken?: string;
  privateSource?: boolean;
  timeout: string;
  json?: boolean;
}

/** The other server, and how its files are fetched. */
interface There {
  connection: Connection;
  files: DownloadSettings;
}

/** What is read of the answers of the other server. */
const Nullable = <T extends ReturnType<typeof Type.String> | ReturnType<typeof Type.Object>>(schema: T) =>
  Type.Union([schema, Type.Null()]);
const ChangesetId = Type.String({ pattern: '^[0-9a-fA-F]{40}$' });
const Download = Type.Object({ download: Nullable(Type.Object({ href: Type.String({ pattern: '^https?://' }) })) });
const requireIModel = expectShape(
  Type.Object({
    iModel: Type.Object({
      name: Type.String({ minLength: 1 }),
      description: Type.Optional(Nullable(Type.String())),
      extent: Type.Optional(Nullable(Type.Object({}))),
    }),
  }),
);
const requireBaseline = expectShape(
  Type.Object({
    baselineFile: Type.Object({ state: Type.String(), fileSize: Type.Integer({ minimum: 1 }), _links: Download }),
  }),
);
const ListedChangeset = Type.Object({
  id: ChangesetId,
  parentId: Type.Union([ChangesetId, Type.Literal(''), Type.Null()]),
  index: Type.Integer({ minimum: 1, maximum: mostChangesets }),
  briefcaseId: Type.Integer({ minimum: 0, maximum: lastBriefcaseId - 1 }),
  fileSize: Type.Integer({ minimum: 0 }),
});
const requireListed = expectShape(ListedChangeset);
const requireChangeset = expectShape(
  Type.Object({
    changeset: Type.Object({
      ...ListedChangeset.properties,
      description: Nullable(Type.String()),
      containingChanges: Type.Integer({ minimum: 0 }),
      synchronizationInfo: Nullable(
        Type.Object({
          taskId: Type.String(),
          changedFiles: Type.Optional(Type.Union([Type.Array(Type.String()), Type.Null()])),
        }),
      ),
      _links: Download,
    }),
  }),
);
const requireBriefcase = expectShape(Type.Object({ id: Type.String({ pattern: '^[0-9]{1,10}$' }) }));

type ListedChangeset = Static<typeof ListedChangeset>;

/** `offshoot mirror`: copies an iModel from another server of the iModels API, such as the vendor's. */
export function mirrorCommand(): Command {
  return withConnection(new Command('mirror'))
    .description('Copy an iModel from any iModels API v2 server. Run the command again to copy new changesets.')
    .argument('<url>', 'address of the source iModel, such as https://api.bentley.com/imodels/{id}')
    .option('--itwin <name or id>', 'iTwin on this server to create the iModel in; by default your only one')
    .option('--name <name>', 'name of the iModel; by default the name of the source')
    .option('--source-token <token>', 'bearer token for the source server; by default $OFFSHOOT_SOURCE_TOKEN')
    .option(
      '--private-source',
      'let the other server, and the links that it gives, be on this machine or in a private network, and without encryption',
    )
    .option('--timeout <seconds>', 'maximum time without progress of a download', String(defaultTimeoutSeconds))
    .option('--json', 'print one JSON object and no progress')
    .action(mirror);
}

async function mirror(address: string, options: MirrorOptions): Promise<void> {
  const [, base, iModelId] = /^(https?:\/\/.+\/imodels)\/([^/?#]+)\/?$/i.exec(address) ?? [];
  if (base === undefined || iModelId === undefined)
    throw new ExitError(
      exitCodes.usage,
      `'${address}' is not the address of an iModel; such an address ends with /imodels/{id}`,
    );
  const sourceToken = options.sourceToken ?? process.env['OFFSHOOT_SOURCE_TOKEN'];
  if (sourceToken === undefined)
    throw new ExitError(
      exitCodes.usage,
      'no token for the other server: give --source-token or set OFFSHOOT_SOURCE_TOKEN',
    );
  const silenceMs = Number(options.timeout) * 1000;
  if (!(silenceMs > 0 && silenceMs < 2 ** 31))
    throw new ExitError(exitCodes.usage, `--timeout must be a number of seconds, not '${options.timeout}'`);
  const outlet = filtered(options.privateSource === true);
  const there: There = {
    connection: await Connection.open(
      { url: base.replace(/\/imodels$/i, ''), token: sourceToken },
      { waitsForRateLimit: true, outlet },
    ),
    files: { silenceMs, outlet },
  };
  const here = await Connection.open(options, { waitsForRateLimit: true });
  const folder = mkdtempSync(path.join(tmpdir(), 'offshoot-mirror-'));
  try {
    printImported(
      await importIModel(
        here,
        await targetITwinOf(here, options.itwin),
        await remote(there, iModelId, folder, options.name),
        options.json !== true,
      ),
      options.json === true,
    );
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** An iModel of another server. A few of its files are downloaded ahead of their push; each is deleted after it. */
async function remote(there: There, iModelId: string, folder: string, name: string | undefined): Promise<Source> {
  const { connection, files } = there;
  const { iModel } = requireIModel(
    (await connection.request('GET', `/imodels/${iModelId}`)).body,
    'the iModel of the other server',
  );
  const listed = await listChangesets(connection, iModelId);
  return {
    name: name ?? iModel.name,
    description: iModel.description ?? null,
    extent: iModel.extent ?? null,
    ids: listed.map(({ id }) => id),
    minimumBriefcaseId: (await highestBriefcaseId(connection, iModelId, listed)) + 1 + briefcaseRoom,
    async baseline() {
      const { baselineFile } = requireBaseline(
        (await connection.request('GET', `/imodels/${iModelId}/baselinefile`)).body,
        'the baseline of the other server',
      );
      if (baselineFile.state !== 'initialized')
        throw new ExitError(
          exitCodes.failed,
          `the baseline of the other server cannot be used: it is '${baselineFile.state}'`,
        );
      const target = path.join(folder, 'baseline.bim');
      await downloadFile(
        { url: requireLink(baselineFile._links), size: baselineFile.fileSize, what: 'the baseline' },
        target,
        files,
      );
      return target;
    },
    async *changesets(afterIndex) {
      // Requests each changeset just before its download: links of a long list would have expired.
      for (const expected of listed.slice(afterIndex))
        yield fetchChangeset(there, iModelId, expected, path.join(folder, `${expected.index}.cs`));
    },
  };
}

/**
 * Every changeset up to the current latest one. Checks that they form one chain.
 * @throws ExitError failed if the list has fewer changesets than the latest one implies, or is not a chain
 */
async function listChangesets(there: Connection, iModelId: string): Promise<ListedChangeset[]> {
  const address = `/imodels/${iModelId}/changesets`;
  let latest: ListedChangeset | undefined;
  for await (const item of there.list(`${address}?$top=1&$orderBy=index desc`, 'changesets', {
    prefer: 'minimal',
    most: mostChangesets,
  })) {
    latest = requireListed(item, 'the latest changeset of the other server');
    break;
  }
  const listed: ListedChangeset[] = [];
  if (latest === undefined) return listed;
  for await (const item of there.list(`${address}?$top=1000`, 'changesets', {
    prefer: 'minimal',
    most: mostChangesets,
  })) {
    const changeset = requireListed(item, `changeset ${listed.length + 1} of the other server`);
    const parentId = listed.at(-1)?.id ?? '';
    if (changeset.index !== listed.length + 1 || (changeset.parentId ?? '').toLowerCase() !== parentId)
      throw new ExitError(
        exitCodes.failed,
        `the other server lists changeset ${changeset.id} (index ${changeset.index}) where the one after ${parentId || 'the baseline'} belongs`,
      );
    listed.push({ ...changeset, id: changeset.id.toLowerCase(), parentId });
    if (listed.length === latest.index) break;
  }
  if (listed.length < latest.index)
    throw new ExitError(
      exitCodes.failed,
      `the other server lists ${countText(listed.length, 'changeset')}, and its latest one has the index ${latest.index}`,
    );
  if (listed.at(-1)?.id !== latest.id.toLowerCase())
    throw new ExitError(exitCodes.failed, 'the source server lists a different latest changeset than it reports');
  return listed;
}

/** The highest id of a briefcase that pushed, or may still push, at the other server. */
async function highestBriefcaseId(
  there: Connection,
  iModelId: string,
  listed: readonly ListedChangeset[],
): Promise<number> {
  let highest = firstBriefcaseId - 1;
  for (const { briefcaseId } of listed) highest = Math.max(highest, briefcaseId);
  for await (const item of there.list(`/imodels/${iModelId}/briefcases?$top=1000`, 'briefcases', {
    prefer: 'minimal',
    most: mostBriefcases,
  }))
    highest = Math.max(highest, Number(requireBriefcase(item, 'a briefcase of the other server').id));
  return highest;
}

async function fetchChangeset(
  { connection, files }: There,
  iModelId: string,
  expected: ListedChangeset,
  target: string,
): Promise<SourceChangeset> {
  const { id, index, fileSize, briefcaseId } = expected;
  const parentId = expected.parentId ?? '';
  const { changeset } = requireChangeset(
    (await connection.request('GET', `/imodels/${iModelId}/changesets/${id}`)).body,
    `changeset ${index} of the other server`,
  );
  if (
    changeset.id.toLowerCase() !== id ||
    changeset.index !== index ||
    changeset.fileSize !== fileSize ||
    (changeset.parentId ?? '').toLowerCase() !== parentId
  )
    throw new ExitError(exitCodes.failed, `the source server describes changeset ${index} (${id}) inconsistently`);
  const { description, containingChanges, synchronizationInfo } = changeset;
  return {
    id,
    parentId,
    description,
    containingChanges,
    synchronizationInfo,
    briefcaseId,
    fileSize,
    file: async (signal) => {
      await downloadFile({ url: requireLink(changeset._links), size: fileSize, what: `changeset ${index}` }, target, {
        ...files,
        signal,
      });
      await requireId(target, id, parentId, index);
      return target;
    },
    pushed: () => rm(target),
  };
}

async function requireId(file: string, id: string, parentId: string, index: number): Promise<void> {
  let found: string;
  try {
    found = (await readChangesetFile(file, parentId, { briefcases: false })).id;
  } catch (error) {
    throw error instanceof ChangesetFileError
      ? new ExitError(
          exitCodes.failed,
          `changeset ${index} (${id}) of the other server is damaged: ${error.message}`,
          error,
        )
      : error;
  }
  if (found !== id)
    throw new ExitError(
      exitCodes.failed,
      `changeset ${index} of the other server is damaged: its file gives the id ${found} and not ${id}`,
    );
}

function requireLink({ download }: Static<typeof Download>): string {
  if (download === null)
    throw new ExitError(
      exitCodes.refused,
      'the other server gives no download link: does the token allow to read the iModel?',
    );
  return download.href;
}
