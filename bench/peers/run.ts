import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { describeMachine, type Machine } from '../../apps/server/src/bench/common.ts';
import { alone, attempt, Budget, residentMiB, withFolder, type Figure } from '../common.ts';
import { Api, makeInstallation } from '../installation.ts';
import { startLoad, type Load } from '../load/load.ts';
import { concurrencies, measureCloneRate } from './cloneRate.ts';
import { compareClones } from './clones.ts';
import { compareFiles } from './files.ts';
import { furtherFigures } from './further.ts';
import { compareReads } from './reads.ts';
import type { Scale, Setting } from './peers.ts';
import { fillSources } from './sources.ts';
import { measureStart } from './startUp.ts';
import { comparePushes } from './pushes.ts';

/** What `npm run bench -- peers --json` prints. */
export interface PeersReport {
  machine: Machine;
  /** How many times as fast Offshoot is: above 1 it is faster. Null for what could not be measured. */
  ratios: {
    getVsBare: number | null;
    downloadVsNginx: number | null;
    uploadVsNginx: number | null;
    cloneVsClientCopy: number | null;
    cloneVsGitShared: number | null;
  };
  /** On SQLite, by number of connections. */
  clonesPerSecond: Record<string, number | null>;
  coldStartMs: number | null;
  idleRssMiB: number | null;
  /** Only without `--quick`. */
  figures?: Figure[];
}

/** Runs all comparisons. @param seconds time that the whole run may take */
export async function runPeers(scale: Scale, seconds: number): Promise<PeersReport> {
  const budget = new Budget(seconds);
  const load = await startLoad();
  try {
    const { start, memory, others } = await measureStart(budget, scale.rounds, scale.quick);
    const main = await measureMain(scale, budget, load);
    const further = scale.quick ? [] : await furtherFigures(scale, budget, load);
    const rate = (connections: number): number | null =>
      main.rates.find(
        ({ what, unit }) =>
          unit === '/s' && what.endsWith(`, ${connections} ${connections === 1 ? 'connection' : 'connections'}`),
      )?.offshoot ?? null;
    return {
      machine: describeMachine(
        undefined,
        'tokens verified, requests counted (limits raised), servers and load in processes of their own on loopback; ratios are medians over rounds that alternate',
      ),
      ratios: {
        getVsBare: main.reads[0]?.ratio ?? null,
        downloadVsNginx: main.files?.download.ratio ?? null,
        uploadVsNginx: main.files?.upload.ratio ?? null,
        cloneVsClientCopy: main.clones?.client?.ratio ?? null,
        cloneVsGitShared: main.clones?.gitShared?.ratio ?? null,
      },
      clonesPerSecond: Object.fromEntries(concurrencies.map((connections) => [String(connections), rate(connections)])),
      coldStartMs: start.offshoot,
      idleRssMiB: memory.offshoot,
      ...(!scale.quick && { figures: [...main.figures, start, memory, ...others, ...further] }),
    };
  } finally {
    await load.stop();
  }
}

/** The comparisons with one server on SQLite and a folder. */
async function measureMain(scale: Scale, budget: Budget, load: Load) {
  return withFolder(async (dataDir) => {
    const installation = await makeInstallation(dataDir, undefined, (services, caller, iTwinId) =>
      fillSources(services, caller, iTwinId, scale),
    );
    const folder = path.join(dataDir, 'beside');
    mkdirSync(folder);
    const server = await installation.start();
    try {
      const api = new Api(server.origin, installation.token);
      const setting: Setting = { scale, budget, load, folder, installation, server, api };
      const reads = (await attempt('reads', () => compareReads(setting))) ?? [];
      const source = { iModelId: installation.content.historyId, iTwinId: installation.iTwinId };
      const rates =
        (await attempt('clones per second', () =>
          measureCloneRate(setting, source, {
            engine: 'SQLite',
            rounds: scale.rounds,
            seconds: scale.seconds,
            reserve: 0.6,
          }),
        )) ?? [];
      const files = await attempt('files', () => compareFiles(setting));
      const clones = await attempt('clones', () => compareClones(setting));
      const pushes = scale.quick ? undefined : await attempt('pushes', () => comparePushes(setting));
      const memory = residentMiB(server.pid);
      const figures = [
        ...reads,
        ...rates,
        ...(files === undefined ? [] : [files.download, files.upload, ...files.others]),
        ...(clones === undefined
          ? []
          : [clones.client, clones.gitShared, ...clones.others].filter((found) => found !== null)),
        ...(pushes ?? []),
        alone('memory after all of this load (resident)', 'MiB', memory),
      ];
      return { reads, rates, files, clones, figures };
    } finally {
      await server.stop();
    }
  });
}
