import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { isITwinJsInstalled } from '../../apps/server/src/checkpoints/itwinjs/workerProcess.ts';
import { BackendProcess } from '../../apps/server/src/viewer/backendProcess.ts';
import type { Api } from '../../test/support/api.ts';
import { chromium } from '../../test/support/chromium.ts';
import { official, workFolder, type Official } from '../../test/support/clients.ts';
import { ConsoleBrowser } from '../../test/support/console.ts';
import { bootServer, endServer, type TestServer } from '../../test/support/server.ts';
import { until } from '../../test/support/until.ts';
import { note } from '../common.ts';
import { ViewPages, type View } from './page.ts';

const plantProcess = fileURLToPath(new URL('../../test/support/plantProcess.ts', import.meta.url));
/** Elements of the iModels. */
export const [small, large] = [1300, 52_000];
/** Longest time for a checkpoint, milliseconds. */
const checkpointMs = 120_000;
/** Ticks of a process's CPU time in a second, which Linux fixes for its users. */
const ticksPerSecond = 100;

/** What one view cost. */
export interface ViewCost extends View {
  /** CPU time of the back end, milliseconds; null where /proc does not exist. */
  cpuMs: number | null;
  /** Tiles that the back end made, and those that the server had kept. */
  made: number;
  kept: number;
}

/** The costs of each round, for one source. */
export interface SourceCosts {
  elements: number;
  /** By what was viewed, in the order in which it was. */
  rounds: Record<string, ViewCost>[];
}

/** A server, and the pages that view its iModels. */
export interface Site {
  server: TestServer;
  api: Api;
  client: Official;
  pages: ViewPages;
  iTwinId: string;
}

/**
 * Views a new iModel twice and then a clone of it, each in a window that has nothing cached.
 * @param withLarge whether to view large iModels too
 */
export async function measureViewer(rounds: number, withLarge: boolean): Promise<SourceCosts[]> {
  requireViewer();
  const server = await bootServer('sqlite', {
    checkpoints: { generate: 'auto', delaySeconds: 0, firstRetrySeconds: 0 },
    graphics: { enabled: false },
    viewer: { enabled: true },
  });
  try {
    const browser = await ConsoleBrowser.launch(server.origin);
    try {
      const pages = await ViewPages.start(browser);
      try {
        const [api, client, iTwinId] = [await server.as('olivia'), await official(server), await server.iTwin()];
        return await measure({ server, api, client, pages, iTwinId }, rounds, withLarge);
      } finally {
        pages.close();
      }
    } finally {
      await browser.close();
    }
  } finally {
    await endServer(server);
  }
}

/** @throws Error if Chromium or iTwin.js is missing */
export function requireViewer(): void {
  if (chromium === undefined) throw new Error('this benchmark needs Chromium');
  if (!isITwinJsInstalled()) throw new Error('this benchmark needs iTwin.js');
}

async function measure(site: Site, rounds: number, withLarge: boolean): Promise<SourceCosts[]> {
  const work = workFolder();
  try {
    const smallFile = await makePlant(work.path, small);
    // The process of the back end runs before the first view that counts.
    await view(site, await makeIModel(site, smallFile));
    const report = [{ elements: small, rounds: await measureSource(site, smallFile, rounds) }];
    if (withLarge)
      report.push({ elements: large, rounds: await measureSource(site, await makePlant(work.path, large), rounds) });
    return report;
  } finally {
    work.remove();
  }
}

/** Makes the file of an iModel. */
export async function makePlant(folder: string, elements: number): Promise<string> {
  const file = path.join(folder, `${elements}.bim`);
  await promisify(execFile)(process.execPath, [plantProcess, file, String(elements)]);
  return file;
}

async function measureSource(site: Site, file: string, count: number): Promise<SourceCosts['rounds']> {
  const rounds: SourceCosts['rounds'] = [];
  for (let round = 1; round <= count; round++) {
    // A new iModel has a baseline of its own, for which no tiles are kept.
    const source = await makeIModel(site, file);
    const [first, second] = [await view(site, source), await view(site, source)];
    const { authorization, client } = site.client;
    const iModelProperties = { iTwinId: site.iTwinId, name: randomUUID() };
    const clone = await client.iModels.clone({ authorization, iModelId: source, iModelProperties });
    rounds.push({
      'source, first view': first,
      'source, second view': second,
      'its clone, first view': await view(site, clone.id),
    });
    note(`round ${round} of ${count}`);
  }
  return rounds;
}

/** Creates an iModel, and waits for its checkpoint. */
export async function makeIModel(
  { client: { client, authorization }, api, iTwinId }: Site,
  filePath: string,
): Promise<string> {
  const iModelProperties = { iTwinId, name: randomUUID(), filePath };
  const { id } = await client.iModels.createFromBaseline({ authorization, iModelProperties });
  await until(
    'the checkpoint',
    async () => {
      const { body } = await api.get(`/imodels/${id}/changesets/0/checkpoint`);
      const { state } = (body as { checkpoint: { state: string } }).checkpoint;
      if (state === 'failed') throw new Error(JSON.stringify(body));
      return state === 'successful' ? true : undefined;
    },
    checkpointMs,
  );
  return id;
}

/** Views an iModel once, in a window that has nothing cached. */
export async function view({ server, pages, iTwinId }: Site, iModelId: string): Promise<ViewCost> {
  const { viewer } = server.services;
  const [backend] = viewer.backends;
  const cpu = (): number | null => (backend instanceof BackendProcess ? cpuMsOf(backend.pid) : null);
  const token = await server.token('olivia');
  const [before, { made, kept }] = [cpu(), { ...viewer.counts }];
  const seen = await pages.view({ server: server.origin, token, iTwinId, iModelId });
  const now = cpu();
  return {
    ...seen,
    cpuMs: before === null || now === null ? null : now - before,
    made: viewer.counts.made - made,
    kept: viewer.counts.kept - kept,
  };
}

/** CPU time of a process with all its threads, milliseconds; null if it does not run or this is not Linux. */
function cpuMsOf(pid: number | undefined): number | null {
  try {
    // The name of the program, in parentheses, may have spaces. User and system time are the fields 14 and 15.
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
      .replace(/^.*\) /s, '')
      .split(' ');
    return ((Number(fields[11]) + Number(fields[12])) / ticksPerSecond) * 1000;
  } catch {
    return null;
  }
}
