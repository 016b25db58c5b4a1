import { prepareSource } from '../../apps/server/src/bench/clone.ts';
import { alone, attempt, median, withFolder, type Budget, type Figure } from '../common.ts';
import { Api, databaseBytes, lookInto, makeInstallation } from '../installation.ts';
import type { Load } from '../load/load.ts';
import { cloneRequest } from './cloneRequest.ts';

const connections = 50;
const clonesForMedian = 100;
const sourceChangesets = 100;
const pushBytes = 1000;
/** Clones of the random tree between two looks for new parents, and pushes among them. */
const [wave, pushesPerWave] = [1000, 20];

interface Building {
  api: Api;
  load: Load;
  dataDir: string;
  iTwinId: string;
  sourceId: string;
  /** Whether there is still time to go on. */
  goesOn: () => boolean;
}

interface Shape {
  name: string;
  clones: number;
  /** Seconds to reserve for it on a slow machine. */
  seconds: number;
  /** @returns the clones made */
  build: (building: Building, clones: number) => Promise<number>;
}

const shapes: Shape[] = [
  { name: 'star', clones: 10_000, seconds: 45, build: buildStar },
  { name: 'chain with a push to each', clones: 1000, seconds: 75, build: buildChain },
  { name: 'random tree', clones: 10_000, seconds: 60, build: buildTree },
];

/** Clones in three shapes: how long they take to make, and what they cost the clones and the start after them. */
export async function measureShapes(budget: Budget, load: Load): Promise<Figure[]> {
  const figures: Figure[] = [];
  for (const shape of shapes)
    if (budget.allows(shape.name, shape.seconds / 2))
      figures.push(...((await attempt(shape.name, () => measureShape(budget, load, shape))) ?? []));
  return figures;
}

async function measureShape(budget: Budget, load: Load, { name, clones, seconds, build }: Shape): Promise<Figure[]> {
  return withFolder(async (dataDir) => {
    const installation = await makeInstallation(dataDir, undefined, (services, caller, iTwinId) =>
      prepareSource(services, caller, iTwinId, { changesets: sourceChangesets, depth: 1 }),
    );
    const { iTwinId, content: sourceId } = installation;
    const cloneP50 = async (api: Api, iModelId: string): Promise<number> => {
      const requests = [cloneRequest(api, iModelId, iTwinId)];
      return median((await load.requests({ requests, connections: 1, count: clonesForMedian })).times);
    };
    let server = await installation.start();
    try {
      let api = new Api(server.origin, installation.token);
      await cloneP50(api, sourceId);
      const before = await cloneP50(api, sourceId);
      const until = performance.now() + Math.min(seconds, budget.secondsLeft * 0.6) * 1000;
      const began = performance.now();
      const goesOn = (): boolean => performance.now() < until;
      const made = await build({ api, load, dataDir, iTwinId, sourceId, goesOn }, clones);
      const built = (performance.now() - began) / 1000;
      const deepest = lookInto(dataDir, (database) =>
        String(database.prepare('select id from imodel order by created_at desc, id limit 1').get()?.['id']),
      );
      const after = await cloneP50(api, deepest);
      const size = databaseBytes(dataDir) / 2 ** 20;
      await server.stop();
      const started = performance.now();
      server = await installation.start();
      api = new Api(server.origin, installation.token);
      await api.json('GET', '/itwins');
      const restart = performance.now() - started;
      const title = `${name}, ${made.toLocaleString('en-US')} clones`;
      return [
        alone(`${title}: time to build`, 's', built),
        alone(`${title}: clone before, p50`, 'ms', before),
        alone(`${title}: clone of the last one after, p50`, 'ms', after),
        alone(`${title}: restart to the first answer`, 'ms', restart),
        alone(`${title}: size of the database`, 'MiB', size),
      ];
    } finally {
      await server.stop();
    }
  });
}

/** All are clones of one. */
async function buildStar({ api, load, iTwinId, sourceId, goesOn }: Building, clones: number): Promise<number> {
  let made = 0;
  for (; made < clones && goesOn(); made += wave)
    await load.requests({ requests: [cloneRequest(api, sourceId, iTwinId)], connections, count: wave });
  return made;
}

/** Each is a clone of the one before, which got a changeset of its own. */
async function buildChain({ api, dataDir, iTwinId, sourceId, goesOn }: Building, clones: number): Promise<number> {
  let parent = lookInto(dataDir, (database) => ({
    iModelId: sourceId,
    changesetId: String(
      database.prepare('select head_changeset_id as id from imodel where id = ?').get(sourceId)?.['id'],
    ),
  }));
  let made = 0;
  for (; made < clones && goesOn(); made++) {
    const iModelId = await api.clone(parent.iModelId, iTwinId);
    parent = { iModelId, changesetId: await api.push(iModelId, parent.changesetId, pushBytes) };
  }
  return made;
}

/** Each is a clone of one of those that exist, some of which got changesets of their own. */
async function buildTree({ api, load, dataDir, iTwinId, goesOn }: Building, clones: number): Promise<number> {
  let made = 0;
  // Grows from few, so that the tree is deep.
  for (let size = 10; made < clones && goesOn(); size = Math.min(wave, size * 2)) {
    const nodes = lookInto(dataDir, (database) =>
      database.prepare('select id, head_changeset_id as head from imodel').all(),
    ).map(({ id, head }) => ({ id: String(id), head: String(head) }));
    const any = () => nodes[Math.floor(Math.random() * nodes.length)] as (typeof nodes)[number];
    const pushed = new Set(Array.from({ length: Math.ceil((size * pushesPerWave) / wave) }, any));
    for (const { id, head } of pushed) await api.push(id, head, pushBytes);
    const count = Math.min(size, clones - made);
    const requests = Array.from({ length: count }, () => cloneRequest(api, any().id, iTwinId));
    await load.requests({ requests, connections: Math.min(connections, count), count });
    made += count;
  }
  return made;
}
