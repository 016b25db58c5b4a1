import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { ConfigInput } from '../../apps/server/src/config.ts';
import { official, workFolder } from '../../test/support/clients.ts';
import { ConsoleBrowser } from '../../test/support/console.ts';
import { startPostgres } from '../../test/support/postgres.ts';
import { endServer, Installation, type TestServer } from '../../test/support/server.ts';
import { startAll, stopAll } from '../../test/support/services.ts';
import { startS3 } from '../../test/support/stores.ts';
import { until } from '../../test/support/until.ts';
import { note } from '../common.ts';
import { ViewPages } from './page.ts';
import { large, makeIModel, makePlant, requireViewer, small, view, type Site, type SourceCosts } from './run.ts';

/** Longest time for the tiles to be written to the store, milliseconds. */
const writtenMs = 60_000;

const firstView = 'first server, first view';
const secondView = 'first server, second view';
const sharedView = 'second server, first view';
const unsharedView = 'second server, first view, without shared tiles';

/** Three servers of one installation. The first two share tiles. */
interface Sites {
  first: Site;
  second: Site;
  unshared: Site;
}

/**
 * Views a new iModel twice on one server and then once on each of two others of the same installation, which have the database
 * and the store of the first, and nothing in their folders: one that takes the tiles from the store, and one that shares none.
 */
export async function measureServers(rounds: number, withLarge: boolean): Promise<SourceCosts[]> {
  requireViewer();
  const services = await startAll(startPostgres, startS3);
  const [postgres, s3] = services;
  const open: TestServer[] = [];
  const folders: string[] = [];
  try {
    const installation = await Installation.create('postgres', postgres.url);
    const start = async (viewer: ConfigInput['viewer'], dataDir?: string): Promise<TestServer> => {
      const server = await installation.start({
        store: {
          type: 's3',
          bucket: 'offshoot',
          endpoint: s3.address,
          accessKeyId: 'S3RVER',
          secretAccessKey: 'S3RVER',
          prefix: 'bench/',
        },
        viewer: { enabled: true, ...viewer },
        checkpoints: { generate: open.length === 0 ? 'auto' : 'off', delaySeconds: 0, firstRetrySeconds: 0 },
        ...(dataDir !== undefined && { dataDir }),
      });
      open.push(server);
      return server;
    };
    const another = async (viewer?: ConfigInput['viewer']): Promise<TestServer> => {
      const folder = mkdtempSync(path.join(tmpdir(), 'offshoot-bench-'));
      folders.push(folder);
      for (const name of ['users.json', 'issuer.json'])
        copyFileSync(path.join(installation.dataDir, name), path.join(folder, name));
      return start(viewer, folder);
    };
    const first = await start({});
    const servers = { first, second: await another(), unshared: await another({ sharedTilesMiB: 0 }) };
    return await onPages(servers, rounds, withLarge);
  } finally {
    for (const server of open.slice(1)) await server.close();
    await endServer(open[0]);
    for (const folder of folders) rmSync(folder, { recursive: true, force: true });
    await stopAll(services);
  }
}

async function onPages(
  servers: Record<keyof Sites, TestServer>,
  rounds: number,
  withLarge: boolean,
): Promise<SourceCosts[]> {
  const browser = await ConsoleBrowser.launch(...Object.values(servers).map(({ origin }) => origin));
  const work = workFolder();
  try {
    const pages = await ViewPages.start(browser);
    try {
      const iTwinId = await servers.first.iTwin();
      const siteOf = async (server: TestServer): Promise<Site> => ({
        server,
        api: await server.as('olivia'),
        client: await official(server),
        pages,
        iTwinId,
      });
      const sites = {
        first: await siteOf(servers.first),
        second: await siteOf(servers.second),
        unshared: await siteOf(servers.unshared),
      };
      const report: SourceCosts[] = [];
      for (const elements of withLarge ? [small, large] : [small]) {
        const file = await makePlant(work.path, elements);
        // The processes of the back ends run before the first view that counts.
        if (report.length === 0) await measureRound(sites, file);
        const costs: SourceCosts = { elements, rounds: [] };
        for (let round = 1; round <= rounds; round++) {
          costs.rounds.push(await measureRound(sites, file));
          note(`${elements} elements, round ${round} of ${rounds}`);
        }
        report.push(costs);
      }
      return report;
    } finally {
      pages.close();
    }
  } finally {
    work.remove();
    await browser.close();
  }
}

async function measureRound({ first, second, unshared }: Sites, file: string): Promise<SourceCosts['rounds'][number]> {
  const iModelId = await makeIModel(first, file);
  const costs = { [firstView]: await view(first, iModelId), [secondView]: await view(first, iModelId) };
  const stored = [...first.server.services.viewer.storedTiles.values()];
  const isWritten = (): true | undefined => (stored.every(({ pending }) => pending === 0) ? true : undefined);
  await until('the tiles to be written to the store', isWritten, writtenMs);
  return { ...costs, [sharedView]: await view(second, iModelId), [unsharedView]: await view(unshared, iModelId) };
}
