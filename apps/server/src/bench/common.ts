import { fork } from 'node:child_process';
import { readdir, readFile, stat } from 'node:fs/promises';
import { cpus, totalmem } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { EmbeddedIssuer } from '../access/embeddedIssuer.ts';

/** What figures were measured on. */
export interface Machine {
  cpu: string;
  cores: number;
  memoryGiB: number;
  node: string;
  os: string;
  database: string;
  settings: string;
}

/** The time below which a share of all lies, milliseconds, to the microsecond. */
export function percentile(times: readonly number[], share: number): number {
  const sorted = [...times].sort((a, b) => a - b);
  const value = sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN;
  return Math.round(value * 1000) / 1000;
}

/** A token of the first user of an installation. */
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

/** Starts a server in a process of its own, on the configuration file `bench.json` of its folder. */
export async function startChild(dataDir: string, databaseUrl: string | undefined): Promise<{ origin: string; stop(): Promise<void> }> {
  const ending = import.meta.url.slice(import.meta.url.lastIndexOf('.'));
  const cli = fileURLToPath(new URL(`../cli${ending}`, import.meta.url));
  const flags = ['start', '--config', path.join(dataDir, 'bench.json'), '--port', '0', '--host', '127.0.0.1', ...(databaseUrl === undefined ? [] : ['--database-url', databaseUrl])];
  const child = fork(cli, flags, { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const origin = await new Promise<string>((resolve, reject) => {
    child.once('message', (message) => resolve((message as { origin: string }).origin));
    child.once('exit', (code) => reject(new Error(`the server of the benchmark ended with ${code}`)));
  });
  return {
    origin,
    stop: async () => {
      child.kill('SIGTERM');
      await ended;
    },
  };
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
