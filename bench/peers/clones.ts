import { copyFileSync, mkdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import { alternate, compare, median, note, runProgram, timed, type Figure } from '../common.ts';
import type { OtherWay, Setting } from './peers.ts';
import { cloneRequest } from './cloneRequest.ts';
import { prepareBlobCopy } from './blobCopy.ts';
import { clientCopy, prepareClientCopy } from './clientCopy.ts';
import { gitSharedClone, prepareGit } from './git.ts';
import { hubMockCopy } from './hubMock.ts';
import { prepareRowCopy } from './rowCopy.ts';

/** Requests per round: their median counts. */
const clonesPerRound = 20;

/** Clones of the iModel with files, beside other ways to copy it. */
export async function compareClones(
  setting: Setting,
): Promise<{ client: Figure | null; gitShared: Figure | null; others: Figure[] }> {
  const { scale, budget, load, installation, api, folder } = setting;
  const { modelId, modelFiles } = installation.content;
  const files = path.join(folder, 'files');
  mkdirSync(files, { recursive: true });
  for (const [n, file] of modelFiles.entries())
    copyFileSync(path.join(installation.dataDir, 'blobs', 'objects', file), path.join(files, String(n)));
  const ways: OtherWay[] = [await prepareClientCopy(setting), ...(await prepareGit(folder, files, scale.quick))];
  const ours: number[] = [];
  const others = new Map<string, number[]>();
  try {
    if (!scale.quick) {
      ways.push(...folderCopies(folder, files), hubMockCopy(folder, files), await prepareRowCopy(installation));
      const blobCopy = await prepareBlobCopy(files);
      if (blobCopy !== null) ways.push(blobCopy);
    }
    await alternate(budget, scale.rounds, budget.secondsLeft * 0.5, async () => {
      const { times } = await load.requests({
        requests: [cloneRequest(api, modelId, installation.iTwinId)],
        connections: 1,
        count: clonesPerRound,
      });
      ours.push(median(times));
      for (const { name, run } of ways) others.set(name, [...(others.get(name) ?? []), await run()]);
    });
  } finally {
    for (const { name, stop } of ways)
      await stop?.().catch((error: unknown) => note(`${name} does not stop: ${String(error)}`));
  }
  const what = `clone of ${modelFiles.length - 1} changesets, 1 connection`;
  const figures = [...others].map(([name, samples]) => compare(what, 'ms', ours, name, samples));
  const taken = (name: string): Figure | null => figures.find(({ beside }) => beside === name) ?? null;
  const [client, gitShared] = [taken(clientCopy), taken(gitSharedClone)];
  return { client, gitShared, others: figures.filter((figure) => figure !== client && figure !== gitShared) };
}

/** Full copies and hard links of a folder. */
function folderCopies(folder: string, files: string): OtherWay[] {
  const target = path.join(folder, 'copy');
  const copy = (name: string, options: string[]): OtherWay => ({
    name,
    run: async () => {
      const took = await timed(() => runProgram('cp', [...options, files, target]));
      rmSync(target, { recursive: true });
      return took;
    },
  });
  return [copy('cp -r', ['-r']), copy('cp -rl', ['-rl'])];
}
