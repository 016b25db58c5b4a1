import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { alone, alternate, compare, median, type Figure } from '../common.ts';
import type { LoadRequest } from '../load/connection.ts';
import type { Setting } from './peers.ts';
import { changesets } from './sources.ts';

const connections = 20;
const startWithinMs = 30_000;

/** GET of one iModel, beside a bare Fastify that answers the same body; and pages, if the measurement is not quick. */
export async function compareReads({ scale, budget, load, installation, server, api }: Setting): Promise<Figure[]> {
  const { historyId } = installation.content;
  const get = (path: string): LoadRequest => ({
    origin: server.origin,
    method: 'GET',
    path,
    headers: api.headers,
    status: 200,
  });
  const iModel = get(`/imodels/${historyId}`);
  const bare = await startBare(await (await api.send('GET', iModel.path)).text());
  const perSecond = async (...requests: LoadRequest[]): Promise<number> => {
    const { times, seconds } = await load.requests({ requests, connections, seconds: scale.seconds });
    return times.length / seconds;
  };
  const [ours, theirs]: [number[], number[]] = [[], []];
  const others = scale.quick
    ? []
    : [
        {
          what: 'GET one changeset',
          requests: Array.from({ length: 97 }, (_, n) =>
            get(`/imodels/${historyId}/changesets/${1 + ((n * 37) % changesets)}`),
          ),
          samples: [] as number[],
        },
        {
          what: 'GET a page of 100 changesets',
          requests: [get(`/imodels/${historyId}/changesets?$top=100`)],
          samples: [] as number[],
        },
        {
          what: 'GET a page of 100 iModels',
          requests: [get(`/imodels?iTwinId=${installation.iTwinId}&$top=100`)],
          samples: [] as number[],
        },
      ];
  try {
    // Compiles what is measured.
    await perSecond(iModel);
    await perSecond({ ...iModel, origin: bare.origin });
    await alternate(budget, scale.rounds, budget.secondsLeft * 0.7, async () => {
      ours.push(await perSecond(iModel));
      theirs.push(await perSecond({ ...iModel, origin: bare.origin }));
      for (const { requests, samples } of others) samples.push(await perSecond(...requests));
    });
  } finally {
    await bare.stop();
  }
  return [
    compare(`GET iModel, ${connections} connections`, '/s', ours, 'bare Fastify', theirs),
    ...others.map(({ what, samples }) => alone(`${what}, ${connections} connections`, '/s', median(samples))),
  ];
}

async function startBare(body: string): Promise<{ origin: string; stop: () => Promise<void> }> {
  const child = fork(fileURLToPath(new URL('bareServer.ts', import.meta.url)), {
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const stop = async (): Promise<void> => {
    child.kill('SIGKILL');
    await ended;
  };
  try {
    child.send({ body });
    const origin = await new Promise<string>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error('the bare Fastify does not start')), startWithinMs);
      child.once('message', (message: { origin: string }) => {
        clearTimeout(timer);
        resolve(message.origin);
      });
      child.once('exit', () => {
        clearTimeout(timer);
        reject(new Error('the bare Fastify ended'));
      });
    });
    return { origin, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}
