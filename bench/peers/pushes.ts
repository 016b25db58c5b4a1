import { randomBytes } from 'node:crypto';
import { mkdirSync, rmSync } from 'node:fs';
import { open } from 'node:fs/promises';
import path from 'node:path';
import { alternate, compare, type Figure } from '../common.ts';
import type { Setting } from './peers.ts';

const pushBytes = 100_000;
/** Most pushes of a round: their files are made before the time starts. */
const mostPerSecond = 400;

/** Pushes of one client, three requests each, beside writing and syncing as many bytes to a file. */
export async function comparePushes({ scale, budget, load, installation, api, folder }: Setting): Promise<Figure[]> {
  const iModelId = await api.clone(installation.content.historyId, installation.iTwinId);
  const { changesets } = await api.json<{ changesets: { id: string }[] }>(
    'GET',
    `/imodels/${iModelId}/changesets?$orderBy=index%20desc&$top=1`,
  );
  let parentId = changesets[0]?.id ?? '';
  const briefcaseId = await api.briefcase(iModelId);
  const count = Math.ceil(mostPerSecond * scale.seconds);
  const [ours, theirs]: [number[], number[]] = [[], []];
  await alternate(budget, scale.rounds, budget.secondsLeft * 0.8, async () => {
    const pushed = await load.pushes({
      origin: api.origin,
      token: api.token,
      iModelId,
      briefcaseId,
      parentId,
      size: pushBytes,
      seconds: scale.seconds,
      count,
    });
    parentId = pushed.lastId ?? parentId;
    ours.push(pushed.times.length / pushed.seconds);
    theirs.push(await writePerSecond(path.join(folder, 'written'), scale.seconds, count));
  });
  return [compare('pushes of 100 kB, 1 client', '/s', ours, 'file written and synced', theirs)];
}

async function writePerSecond(folder: string, seconds: number, count: number): Promise<number> {
  mkdirSync(folder);
  const bytes = randomBytes(pushBytes);
  const began = performance.now();
  let written = 0;
  for (; written < count && performance.now() < began + seconds * 1000; written++) {
    const file = await open(path.join(folder, String(written)), 'wx');
    await file.write(bytes);
    await file.sync();
    await file.close();
  }
  const perSecond = (written / (performance.now() - began)) * 1000;
  rmSync(folder, { recursive: true });
  return perSecond;
}
