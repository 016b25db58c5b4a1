/**
 * Keeps native code out of the server's trust domain. iTwin.js parses files that strangers upload, so the process that
 * runs it is held as far from the server as the system allows: what it could be made to read or send, it must not see.
 */
import { execFile, type SpawnOptions } from 'node:child_process';
import { existsSync, lstatSync, readlinkSync, realpathSync } from 'node:fs';
import { lchown, readdir } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { isolationLevels, type IsolationLevel } from '../../domain.ts';

/** How to start the process. */
interface IsolatedCommand {
  file: string;
  args: string[];
  options: Pick<SpawnOptions, 'uid' | 'gid' | 'env' | 'cwd'>;
}

export interface Isolation {
  level: IsolationLevel;
  /**
   * @param script module to run
   * @param args its arguments
   * @param connected whether it talks to the server over a channel of Node
   */
  command(script: string, args: readonly string[], connected: boolean): IsolatedCommand;
  /** Gives a folder below the working folder, with what is in it, to the user of the process. */
  grantAccess(folder: string): Promise<void>;
}

/**
 * The user of the first process where the server runs as root and has no namespaces to use: Debian's `nobody`. Each
 * further process has the id below.
 */
const nobody = 65_534;
/** Longest that a trial of one level may take, milliseconds. */
const trialMs = 10_000;
/** File descriptor of the channel to the server, as Node numbers it: after standard input, output and error. */
const channel = 3;
/** Bytes of the only writable folder beside the working folder. */
const temporaryBytes = 64 * 2 ** 20;

/** What is not there is not enough: the level in force is below the one that the configuration asks for. */
export class IsolationError extends Error {
  constructor(level: IsolationLevel, wanted: IsolationLevel) {
    super(
      `Checkpoints are not made: the iTwin.js process can be isolated at level '${level}' here, and 'checkpoints.isolation' asks for '${wanted}'. Install bubblewrap, or run the server as root, or lower the setting.`,
    );
    this.name = 'IsolationError';
  }
}

/**
 * Finds the strongest level that works here, by trying it.
 * @param folder the working folder of the process, which must exist
 * @param wanted the level below which nothing may be run
 * @param slot number of the process: two at a time share no user
 * @throws IsolationError
 */
export async function findIsolation(folder: string, wanted: IsolationLevel, slot = 0): Promise<Isolation> {
  for (const isolation of [namespaces(folder), ownUser(folder, nobody - slot), ownProcess(folder)]) {
    if (isolation === undefined) continue;
    await isolation.grantAccess(folder);
    if (!(await works(isolation, folder))) continue;
    if (isolationLevels.indexOf(isolation.level) < isolationLevels.indexOf(wanted))
      throw new IsolationError(isolation.level, wanted);
    return isolation;
  }
  throw new IsolationError('process', wanted);
}

/** Runs a small program at a level: it must start, load a package of the server's and write to the working folder. */
function works(isolation: Isolation, folder: string): Promise<boolean> {
  const trial = fileURLToPath(new URL(`./isolationTrial${ending()}`, import.meta.url));
  const { file, args, options } = isolation.command(trial, [folder], false);
  return new Promise((resolve) => {
    execFile(file, args, { ...options, timeout: trialMs, killSignal: 'SIGKILL', windowsHide: true }, (error) =>
      resolve(error === null),
    );
  });
}

/** Changes the owner of a folder and of what is directly in it: working folders are flat. */
async function giveTo(uid: number, gid: number, folder: string): Promise<void> {
  for (const name of await readdir(folder)) await lchown(path.join(folder, name), uid, gid);
  await lchown(folder, uid, gid);
}

/** From the sources these modules end in .ts, from the build in .js. */
function ending(): string {
  return import.meta.url.slice(import.meta.url.lastIndexOf('.'));
}

/** Nothing of the server's environment, which holds its secrets. */
function emptyEnvironment(folder: string): Record<string, string> {
  return { HOME: folder, TMPDIR: folder, SQLITE_TMPDIR: folder, TZ: 'UTC', LANG: 'C.UTF-8', NODE_ENV: 'production' };
}

function ownProcess(folder: string): Isolation {
  return {
    level: 'process',
    grantAccess: async () => undefined,
    command: (script, args) => ({
      file: process.execPath,
      args: [script, ...args],
      options: { env: emptyEnvironment(folder), cwd: folder },
    }),
  };
}

function ownUser(folder: string, id: number): Isolation | undefined {
  if (process.getuid?.() !== 0) return undefined;
  return {
    level: 'user',
    grantAccess: (lent) => giveTo(id, id, lent),
    command: (script, args) => ({
      file: process.execPath,
      args: [script, ...args],
      options: { env: emptyEnvironment(folder), cwd: folder, uid: id, gid: id },
    }),
  };
}

function namespaces(folder: string): Isolation | undefined {
  const bubblewrap = (process.env['PATH'] ?? '')
    .split(path.delimiter)
    .map((place) => path.join(place, 'bwrap'))
    .find((file) => path.isAbsolute(file) && existsSync(file));
  if (process.platform !== 'linux' || bubblewrap === undefined) return undefined;
  const node = realpathSync(process.execPath);
  const readable = [node, ...packageFolders()].flatMap((place) => ['--ro-bind', place, place]);
  const environment = Object.entries(emptyEnvironment(folder)).flatMap(([name, value]) => ['--setenv', name, value]);
  const sandbox = [
    // Namespaces of everything, the network included; no way to a terminal; ends with the server.
    ...['--unshare-all', '--die-with-parent', '--new-session', '--clearenv'],
    ...['--ro-bind', '/usr', '/usr', ...['/bin', '/sbin', '/lib', '/lib32', '/lib64'].flatMap(systemFolder)],
    ...['--ro-bind-try', '/etc/ld.so.cache', '/etc/ld.so.cache'],
    ...['--proc', '/proc', '--dev', '/dev', '--size', String(temporaryBytes), '--tmpfs', '/tmp'],
    ...readable,
    ...['--bind', folder, folder, '--chdir', folder],
    ...environment,
  ];
  return {
    level: 'namespaces',
    grantAccess: async () => undefined,
    command: (script, args, connected) => ({
      file: bubblewrap,
      args: [
        ...sandbox,
        ...(connected ? ['--setenv', 'NODE_CHANNEL_FD', String(channel)] : []),
        '--',
        node,
        script,
        ...args,
      ],
      options: {},
    }),
  };
}

/** `/lib` and its like: on most systems links into `/usr`. */
function systemFolder(folder: string): string[] {
  if (!existsSync(folder)) return [];
  return lstatSync(folder).isSymbolicLink()
    ? ['--symlink', readlinkSync(folder), folder]
    : ['--ro-bind', folder, folder];
}

/**
 * Where the code of the process is: the server's own package, and every folder of packages above it. Nothing beside
 * them, where the configuration or the data may be.
 */
function packageFolders(): string[] {
  const own = path.dirname(fileURLToPath(new URL('../../../package.json', import.meta.url)));
  const folders = [own];
  for (let at = own; ; at = path.dirname(at)) {
    if (path.basename(at) !== 'node_modules' && existsSync(path.join(at, 'node_modules')))
      folders.push(path.join(at, 'node_modules'));
    if (path.dirname(at) === at) return folders;
  }
}
