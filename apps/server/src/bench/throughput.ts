import { randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import pino from 'pino';
import { loadConfig } from '../config.ts';
import { openServices } from '../wiring/services.ts';
import { prepareSource } from './clone.ts';
import {
  describeMachine,
  firstOwner,
  percentile,
  raisedTiers,
  startChild,
  tokenOf,
  type Child,
  type Machine,
} from './common.ts';

/** The total throughput of several server processes on one PostgreSQL. */
export interface ThroughputCase {
  servers: number;
  clonesPerSecond: number;
  cloneP50Ms: number;
  cloneP99Ms: number;
  /** Reads of one changeset in its full representation, with its download link. */
  readsPerSecond: number;
  readP50Ms: number;
  readP99Ms: number;
}

export interface ThroughputBench {
  machine: Machine;
  cases: ThroughputCase[];
}

const processes = [1, 2, 4];
const changesets = 1000;
/** Concurrent requests over all servers together. */
const clients = 16;
/** Cases alternate, so that other load on the machine affects all of them alike. */
const rounds = 3;
const warmUpSeconds = 0.5;

/**
 * Measures clones and reads on PostgreSQL with 1, 2 and 4 servers, each in a separate process; this process generates
 * the load. The time is bounded. The servers listen on loopback only.
 * @param options.databaseUrl an empty database
 * @param options.seconds time to measure clones, and then reads, in each case
 */
export async function benchThroughput(options: {
  databaseUrl: string;
  seconds: number;
  onStart: (machine: Machine) => void;
  onCase: (found: ThroughputCase) => void;
}): Promise<ThroughputBench> {
  const dataDir = mkdtempSync(path.join(tmpdir(), 'offshoot-bench-'));
  try {
    const { databaseUrl, seconds } = options;
    const file = path.join(dataDir, 'bench.json');
    writeFileSync(
      file,
      JSON.stringify({ dataDir, databaseUrl, logLevel: 'error', tiers: raisedTiers, checkpoints: { generate: 'off' } }),
    );
    const services = await openServices(loadConfig({}, { file, env: {} }), pino({ level: 'error' }));
    const { iTwinId, caller } = await firstOwner(services);
    const sourceId = await prepareSource(services, caller, iTwinId, { changesets, depth: 1 }).finally(() =>
      services.close(),
    );
    const machine = describeMachine(
      databaseUrl,
      `${clients} requests at a time over all servers; servers, PostgreSQL and the load share the cores`,
    );
    options.onStart(machine);
    const token = await tokenOf(dataDir);
    const tallies = processes.map(() => ({
      clones: [] as number[],
      cloneSeconds: 0,
      reads: [] as number[],
      readSeconds: 0,
    }));
    for (let round = 0; round < rounds; round++)
      for (const [n, count] of processes.entries()) {
        const tally = tallies[n] as (typeof tallies)[number];
        const servers = await Promise.all(Array.from({ length: count }, () => startChild(dataDir, databaseUrl)));
        try {
          const clone = cloneOf(iTwinId, sourceId);
          const read = readOf(sourceId);
          for (const [what, times] of [
            [clone, tally.clones],
            [read, tally.reads],
          ] as const) {
            await load(servers, token, what, warmUpSeconds, []);
            const took = await load(servers, token, what, seconds / rounds, times);
            if (what === clone) tally.cloneSeconds += took;
            else tally.readSeconds += took;
          }
        } finally {
          await Promise.all(servers.map((server) => server.stop()));
        }
      }
    const cases = processes.map((servers, n): ThroughputCase => {
      const { clones, cloneSeconds, reads, readSeconds } = tallies[n] as (typeof tallies)[number];
      return {
        servers,
        clonesPerSecond: Math.round(clones.length / cloneSeconds),
        cloneP50Ms: percentile(clones, 0.5),
        cloneP99Ms: percentile(clones, 0.99),
        readsPerSecond: Math.round(reads.length / readSeconds),
        readP50Ms: percentile(reads, 0.5),
        readP99Ms: percentile(reads, 0.99),
      };
    });
    cases.forEach(options.onCase);
    return { machine, cases };
  } finally {
    rmSync(dataDir, { recursive: true, force: true });
  }
}

/** One kind of request. */
interface Kind {
  method: string;
  path(): string;
  body?(): string;
  status: number;
}

const cloneOf = (iTwinId: string, sourceId: string): Kind => ({
  method: 'POST',
  path: () => `/imodels/${sourceId}/clone`,
  body: () => JSON.stringify({ iTwinId, name: randomUUID() }),
  status: 202,
});
const readOf = (sourceId: string): Kind => ({
  method: 'GET',
  path: () => `/imodels/${sourceId}/changesets/${1 + Math.floor(Math.random() * changesets)}`,
  status: 200,
});

/** Sends requests of one kind for `seconds`; each client uses one server. @returns the seconds it actually took */
async function load(
  servers: readonly Child[],
  token: string,
  kind: Kind,
  seconds: number,
  times: number[],
): Promise<number> {
  const agent = new Agent({ keepAlive: true, maxSockets: clients });
  const began = performance.now();
  const until = began + seconds * 1000;
  const client = async (n: number): Promise<void> => {
    const { origin } = servers[n % servers.length] as Child;
    while (performance.now() < until) {
      const sent = performance.now();
      await send(agent, origin, token, kind);
      times.push(performance.now() - sent);
    }
  };
  try {
    await Promise.all(Array.from({ length: clients }, (_, n) => client(n)));
    return (performance.now() - began) / 1000;
  } finally {
    agent.destroy();
  }
}

/** Uses `node:http`, because `fetch` would need more CPU time than the servers under test. */
function send(agent: Agent, origin: string, token: string, kind: Kind): Promise<void> {
  return new Promise((resolve, reject) => {
    const body = kind.body?.();
    const headers = {
      authorization: `Bearer ${token}`,
      ...(body !== undefined && { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }),
    };
    const sending = request(`${origin}${kind.path()}`, { agent, method: kind.method, headers }, (response) => {
      response.resume();
      response.once('error', reject);
      response.once('end', () =>
        response.statusCode === kind.status
          ? resolve()
          : reject(new Error(`${kind.method} answered ${response.statusCode ?? 0}`)),
      );
    });
    sending.once('error', reject);
    sending.end(body);
  });
}
