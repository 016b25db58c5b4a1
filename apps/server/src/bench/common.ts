import { fork } from 'node:child_process';
import { readdir, readFile, stat } from 'node:fs/promises';
import { cpus, totalmem } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { userOfEntry, type DirectoryUser } from '../access/directory.ts';
import { EmbeddedIssuer } from '../access/embeddedIssuer.ts';
import type { Caller } from '../domain.ts';
import { ensureFirstITwin } from '../wiring/firstITwin.ts';
import type { Services } from '../services.ts';

/** The environment in which figures were measured. */
export interface Machine {
  cpu: string;
  cores: number;
  memoryGiB: number;
  node: string;
  os: string;
  database: string;
  settings: string;
}

/** A percentile of times in milliseconds, rounded to the microsecond. @param share 0.5 for the median */
export function percentile(times: readonly number[], share: number): number {
  const sorted = [...times].sort((a, b) => a - b);
  const value = sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN;
  return Math.round(value * 1000) / 1000;
}

/** Issues a token for the first user of an installation. */
export async function tokenOf(dataDir: string): Promise<string> {
  const issuer = await EmbeddedIssuer.open(dataDir);
  const user = (JSON.parse(await readFile(path.join(dataDir, 'users.json'), 'utf8')) as { users: [never] }).users[0];
  return issuer.mint(user, { applicationId: 'offshoot-cli', scope: 'itwin-platform', lifeSeconds: 3600 });
}

/** Bytes of all files in a folder. */
export async function folderBytes(folder: string): Promise<number> {
  let bytes = 0;
  for (const name of await readdir(folder, { recursive: true })) {
    const found = await stat(path.join(folder, name));
    if (found.isFile()) bytes += found.size;
  }
  return bytes;
}

/** Rate limits that no benchmark reaches. Requests are still counted, so their cost is included. */
export const raisedTiers = {
  Enterprise: {
    general: [{ requests: 1_000_000_000, seconds: 60 }],
    operations: {
      'clone-imodel': { requests: 1_000_000_000, seconds: 60 },
      'create-imodel': { requests: 1_000_000_000, seconds: 60 },
    },
  },
};

/** The first user of a new installation, and the iTwin created for it. @throws Error if the installation is not new */
export async function firstOwner(services: Services): Promise<{ iTwinId: string; caller: Caller }> {
  const iTwin = await ensureFirstITwin(services);
  if (iTwin === undefined) throw new Error('the benchmark needs an empty database');
  const user = userOfEntry(services.directory.data.users[0] as DirectoryUser);
  return {
    iTwinId: iTwin.id,
    caller: {
      user,
      application: { id: 'bench', name: 'Benchmark', tier: services.config.defaultTier },
      administeredOrganizationIds: [],
    },
  };
}

/** A server in a separate process. */
export interface Child {
  origin: string;
  pid: number;
  stop(): Promise<void>;
  /** Ends the process without warning (SIGKILL). */
  kill(): Promise<void>;
}

const startWithinMs = 120_000;

/** The options of Node with which `npm start` and the image start a server. */
export const startFlags = ['--max-semi-space-size=4'];

/** The settings of glibc with which the image starts a server. Elsewhere they are part of the environment, if it has them. */
export const startEnvironment = { MALLOC_ARENA_MAX: '2', MALLOC_TRIM_THRESHOLD_: '131072' };

/** The program in a checkout, which runs from its sources, or in the package, which holds compiled code. */
export const launcher = fileURLToPath(new URL('../../bin/offshoot.cjs', import.meta.url));

/** Starts a server in a separate process, as the image does, with the configuration file `bench.json` in its data folder. */
export async function startChild(
  dataDir: string,
  databaseUrl: string | undefined,
  program: string = launcher,
): Promise<Child> {
  const flags = [
    'start',
    '--config',
    path.join(dataDir, 'bench.json'),
    '--port',
    '0',
    '--host',
    '127.0.0.1',
    ...(databaseUrl === undefined ? [] : ['--database-url', databaseUrl]),
  ];
  const child = fork(program, flags, {
    execArgv: startFlags,
    env: { ...startEnvironment, ...process.env },
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const origin = await new Promise<string>((resolve, reject) => {
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
      reject(new Error(`the server of the benchmark has not started after ${startWithinMs} ms`));
    }, startWithinMs);
    child.once('message', (message) => {
      clearTimeout(timer);
      resolve((message as { origin: string }).origin);
    });
    child.once('exit', (code) => {
      clearTimeout(timer);
      reject(new Error(`the server of the benchmark ended with ${code}`));
    });
  });
  const end = async (signal: 'SIGTERM' | 'SIGKILL'): Promise<void> => {
    child.kill(signal);
    await ended;
  };
  return { origin, pid: child.pid as number, stop: () => end('SIGTERM'), kill: () => end('SIGKILL') };
}

export function describeMachine(databaseUrl: string | undefined, settings: string): Machine {
  return {
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: cpus().length,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    node: process.version,
    os: `${process.platform} ${process.arch}`,
    database: databaseUrl === undefined ? 'SQLite, WAL, synchronous=FULL' : 'PostgreSQL',
    settings,
  };
}
