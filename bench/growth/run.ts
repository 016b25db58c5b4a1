import { describeMachine, type Machine } from '../../apps/server/src/bench/common.ts';
import { startPostgres } from '../../test/support/postgres.ts';
import { attempt, Budget, note, rounded, withFolder } from '../common.ts';
import { startLoad, type Load } from '../load/load.ts';
import { makeData } from './data.ts';
import { measureRequests } from './requests.ts';
import { measureUpkeep } from './upkeep.ts';

export type GrowthEngine = 'sqlite' | 'postgres';

/** The time of one operation at both sizes. */
interface Growth {
  what: string;
  smallMs: number | null;
  largeMs: number | null;
  /** Time at ten times the data, as a multiple of the time before. */
  factor: number | null;
}

export interface GrowthReport {
  machine: Machine;
  engine: GrowthEngine;
  /** iModels, iTwins, users, members, groups, locks and versions of the smaller size; it has ten times as many changesets. */
  size: number;
  operations: Growth[];
}

/** Users who send requests in turn, for each iModel: 12,000 at the default of ten times 10,000. */
const activeShare = 0.12;

/** Measures operations with some data and with ten times as much, each in an installation of its own. @param seconds time that it may take */
export async function runGrowth(engine: GrowthEngine, size: number, seconds: number): Promise<GrowthReport> {
  const budget = new Budget(seconds);
  const load = await startLoad();
  try {
    const small = await measure(engine, size, load, budget);
    const large = await measure(engine, size * 10, load, budget);
    const operations = [...new Set([...small.keys(), ...large.keys()])].map((what): Growth => {
      const [before, after] = [small.get(what) ?? NaN, large.get(what) ?? NaN];
      return { what, smallMs: rounded(before), largeMs: rounded(after), factor: rounded(after / before) };
    });
    const machine = describeMachine(
      engine === 'sqlite' ? undefined : 'postgres',
      'tokens verified, requests counted (limits raised), one request at a time, medians of 5',
    );
    return { machine, engine, size, operations };
  } finally {
    await load.stop();
  }
}

async function measure(engine: GrowthEngine, size: number, load: Load, budget: Budget): Promise<Map<string, number>> {
  const times = new Map<string, number>();
  const record = (name: string, ms: number): void => void times.set(name, ms);
  const postgres = engine === 'postgres' ? await startPostgres({ durable: true }) : undefined;
  try {
    await withFolder(async (dataDir) => {
      const began = performance.now();
      const installation = await makeData(dataDir, postgres?.url, size, Math.ceil(size * activeShare));
      note(
        `${engine}: ${size.toLocaleString('en-US')} iModels made in ${((performance.now() - began) / 1000).toFixed(0)} s`,
      );
      await attempt('requests', () => measureRequests(installation, load, budget, size, record));
      await attempt('upkeep', () => measureUpkeep(installation, budget, record));
    });
  } finally {
    await postgres?.stop();
  }
  return times;
}
