import { createWriteStream, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { Command } from 'commander';
import { bringIn, type Source, type SourceChangeset } from './bringIn.ts';
import { Connection, withConnection, type ConnectionOptions } from './connection.ts';
import { exitCodes, ExitError } from './exit.ts';
import { printBrought } from './import.ts';

/** How often one file is begun or gone on with. */
const downloadAttempts = 5;

interface MirrorOptions extends ConnectionOptions {
  itwin: string;
  name?: string;
  sourceToken?: string;
  json?: boolean;
}

interface RemoteChangeset extends Omit<SourceChangeset, 'file'> {
  index: number;
  _links: { download: { href: string } | null };
}

/** `offshoot mirror`: an iModel from another server of the same API, the vendor's included. */
export function mirrorCommand(): Command {
  return withConnection(new Command('mirror'))
    .description('Bring an iModel in from any iModels API v2 server. Run again, it brings what is new.')
    .argument('<url>', 'address of the iModel there, such as https://api.bentley.com/imodels/{id}')
    .requiredOption('--itwin <id>', 'iTwin here that will hold the iModel')
    .option('--name <name>', 'name of the iModel; that of the source by default')
    .option('--source-token <token>', 'bearer token for the other server; by default $OFFSHOOT_SOURCE_TOKEN')
    .option('--json', 'print one JSON object and no progress')
    .action(mirror);
}

async function mirror(address: string, options: MirrorOptions): Promise<void> {
  const [, base, iModelId] = /^(https?:\/\/.+\/imodels)\/([^/?#]+)\/?$/i.exec(address) ?? [];
  if (base === undefined || iModelId === undefined) throw new ExitError(exitCodes.usage, `'${address}' is no address of an iModel: it ends with /imodels/{id}`);
  const sourceToken = options.sourceToken ?? process.env.OFFSHOOT_SOURCE_TOKEN;
  if (sourceToken === undefined) throw new ExitError(exitCodes.usage, 'no token for the other server: give --source-token or set OFFSHOOT_SOURCE_TOKEN');
  const there = await Connection.open({ url: base.replace(/\/imodels$/i, ''), token: sourceToken, data: options.data }, true);
  const here = await Connection.open(options, true);
  const folder = mkdtempSync(path.join(tmpdir(), 'offshoot-mirror-'));
  try {
    printBrought(await bringIn(here, options.itwin, await remote(there, iModelId, folder, options.name), options.json !== true), options.json === true);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** An iModel of another server. Its files are fetched one by one, each gone when the next one comes. */
async function remote(there: Connection, iModelId: string, folder: string, name: string | undefined): Promise<Source> {
  const { iModel } = (await there.request('GET', `/imodels/${iModelId}`)).body as { iModel: { name: string; description: string | null; extent: object | null } };
  const latest = (await there.request('GET', `/imodels/${iModelId}/changesets?$top=1&$orderBy=index desc`)).body as { changesets: { index: number }[] };
  return {
    name: name ?? iModel.name,
    description: iModel.description,
    extent: iModel.extent,
    count: latest.changesets[0]?.index ?? 0,
    async baseline() {
      const { baselineFile } = (await there.request('GET', `/imodels/${iModelId}/baselinefile`)).body as { baselineFile: { _links: { download: { href: string } | null } } };
      return fetchFile(baselineFile._links.download?.href, path.join(folder, 'baseline.bim'));
    },
    async *changesets(afterIndex) {
      for await (const changeset of there.list<RemoteChangeset>(`/imodels/${iModelId}/changesets?$top=100&afterIndex=${afterIndex}`, 'changesets'))
        yield {
          ...changeset,
          file: async () => {
            // Links run out: one of a long page is asked for anew.
            const fresh = (await there.request('GET', `/imodels/${iModelId}/changesets/${changeset.id}`)).body as { changeset: RemoteChangeset };
            return fetchFile(fresh.changeset._links.download?.href, path.join(folder, 'changeset.cs'));
          },
        };
    },
  };
}

async function fetchFile(url: string | undefined, target: string): Promise<string> {
  if (url === undefined) throw new ExitError(exitCodes.refused, 'the other server gives no download link: does the token allow to read the iModel?');
  let etag: string | null = null;
  for (let attempt = 1; ; attempt++) {
    const have = etag === null ? 0 : statSync(target).size;
    const response = await fetch(url, { headers: have > 0 && etag !== null ? { range: `bytes=${have}-`, 'if-match': etag } : {} });
    if (!response.ok || response.body === null) throw new ExitError(exitCodes.unreachable, `a download was answered ${response.status}`);
    etag = response.headers.get('etag');
    try {
      // A large baseline that breaks off goes on where it ended, if the other server sends a part of the same file.
      await pipeline(Readable.fromWeb(response.body as never), createWriteStream(target, { flags: response.status === 206 ? 'a' : 'w' }));
      return target;
    } catch (error) {
      if (attempt === downloadAttempts) throw new ExitError(exitCodes.unreachable, `a download broke off ${attempt} times`, error);
    }
  }
}
