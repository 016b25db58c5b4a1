import { percentile } from '../../apps/server/src/bench/common.ts';
import { alternate, median, rounded, type Budget, type Figure } from '../common.ts';
import type { Api } from '../installation.ts';
import { cloneRequest } from './cloneRequest.ts';
import type { Load } from '../load/load.ts';

/** Numbers of connections that clone at the same time. */
export const concurrencies = [1, 8, 50] as const;

/** Clones per second by number of connections. @param reserve share of the time that is left for what follows */
export async function measureCloneRate(
  { load, budget, api }: { load: Load; budget: Budget; api: Api },
  source: { iModelId: string; iTwinId: string },
  options: { engine: string; rounds: number; seconds: number; reserve: number },
): Promise<Figure[]> {
  const tallies = concurrencies.map((connections) => ({ connections, rates: [] as number[], times: [] as number[] }));
  const clone = (connections: number, seconds: number) =>
    load.requests({
      requests: [cloneRequest(api, source.iModelId, source.iTwinId)],
      connections,
      seconds,
    });
  await clone(8, options.seconds / 2);
  await alternate(budget, options.rounds, budget.secondsLeft * options.reserve, async () => {
    for (const { connections, rates, times } of tallies) {
      const loaded = await clone(connections, options.seconds);
      rates.push(loaded.times.length / loaded.seconds);
      times.push(...loaded.times);
    }
  });
  return tallies.flatMap(({ connections, rates, times }): Figure[] => {
    const what = `clones on ${options.engine}, ${connections} ${connections === 1 ? 'connection' : 'connections'}`;
    const nothing = { beside: null, peer: null, ratio: null };
    return [
      { what, unit: '/s', offshoot: rounded(median(rates)), ...nothing },
      {
        what: `${what}: p50`,
        unit: 'ms',
        offshoot: rounded(percentile(times, 0.5)),
        p99: rounded(percentile(times, 0.99)) ?? NaN,
        ...nothing,
      },
    ];
  });
}
