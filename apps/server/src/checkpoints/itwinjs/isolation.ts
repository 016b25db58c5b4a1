/**
 * Keeps native code out of the server's trust domain. iTwin.js parses uploaded files from untrusted users, so its
 * process is isolated as strongly as the system allows: a compromised process must have nothing to read and nowhere to
 * send it.
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
   * @param connected whether the process uses a Node IPC channel to the server
   */
  command(script: string, args: readonly string[], connected: boolean): IsolatedCommand;
  /** Makes the user of the process the owner of a folder below the working folder and of the files in it. */
  grantAccess(folder: string): Promise<void>;
}

/**
 * User id of the first process if the server runs as root and cannot use namespaces: `nobody` on Debian. Each further
 * process has the next lower id.
 */
const nobody = 65_534;
/** Timeout for trying one level, milliseconds. */
const trialTimeoutMs = 10_000;
/** File descriptor of the IPC channel to the server. Node uses the first one after standard input, output and error. */
const channel = 3;
/** Size of `/tmp`, the only writable folder other than the working folder, bytes. */
const temporaryBytes = 64 * 2 ** 20;

/** The strongest level that works on this machine is below the one that the configuration requires. */
export class IsolationError extends Error {
  constructor(level: IsolationLevel, wanted: IsolationLevel) {
    super(
      `Checkpoints are not made: 'checkpoints.isolation' requires level '${wanted}', but this machine can isolate the iTwin.js process only at level '${level}'. Install bubblewrap, run the server as root, or lower the setting.`,
    );
    this.name = 'IsolationError';
  }
}

/**
 * Finds the strongest level that works on this machine by trying each level.
 * @param folder the working folder of the process, which must exist
 * @param wanted the minimum level
 * @param options.slot number of the process; concurrent processes have different users
 * @param options.network whether the process needs the network
 * @throws IsolationError
 */
export async function findIsolation(
  folder: string,
  wanted: IsolationLevel,
  { slot = 0, network = false }: { slot?: number; network?: boolean } = {},
): Promise<Isolation> {
  for (const isolation of [namespaces(folder, network), ownUser(folder, nobody - slot), ownProcess(folder)]) {
    if (isolation === undefined) continue;
    await isolation.grantAccess(folder);
    if (!(await isUsable(isolation, folder))) continue;
    if (isolationLevels.indexOf(isolation.level) < isolationLevels.indexOf(wanted))
      throw new IsolationError(isolation.level, wanted);
    return isolation;
  }
  throw new IsolationError('process', wanted);
}

/**
 * Runs a small program at a level. It must start, resolve one of the server's packages and write to the working folder.
 */
function isUsable(isolation: Isolation, folder: string): Promise<boolean> {
  const trial = fileURLToPath(new URL(`./isolationTrial${moduleExtension()}`, import.meta.url));
  const { file, args, options } = isolation.command(trial, [folder], false);
  return new Promise((resolve) => {
    execFile(file, args, { ...options, timeout: trialTimeoutMs, killSignal: 'SIGKILL', windowsHide: true }, (error) =>
      resolve(error === null),
    );
  });
}

/** Changes the owner of a folder and of its direct entries. Working folders have no subfolders. */
async function changeOwner(uid: number, gid: number, folder: string): Promise<void> {
  for (const name of await readdir(folder)) await lchown(path.join(folder, name), uid, gid);
  await lchown(folder, uid, gid);
}

/** File extension of the modules: `.ts` in the sources, `.js` in the build. */
function moduleExtension(): string {
  return import.meta.url.slice(import.meta.url.lastIndexOf('.'));
}

/** Environment of the process. It contains nothing of the server's environment, which holds secrets. */
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
    grantAccess: (lent) => changeOwner(id, id, lent),
    command: (script, args) => ({
      file: process.execPath,
      args: [script, ...args],
      options: { env: emptyEnvironment(folder), cwd: folder, uid: id, gid: id },
    }),
  };
}

function namespaces(folder: string, network: boolean): Isolation | undefined {
  const bubblewrap = (process.env['PATH'] ?? '')
    .split(path.delimiter)
    .map((place) => path.join(place, 'bwrap'))
    .find((file) => path.isAbsolute(file) && existsSync(file));
  if (process.platform !== 'linux' || bubblewrap === undefined) return undefined;
  const node = realpathSync(process.execPath);
  const readable = [node, ...packageFolders()].flatMap((place) => ['--ro-bind', place, place]);
  const environment = Object.entries(emptyEnvironment(folder)).flatMap(([name, value]) => ['--setenv', name, value]);
  const sandbox = [
    // Unshares all namespaces including the network unless it is needed, has no terminal, and ends with the server.
    ...['--unshare-all', ...(network ? ['--share-net'] : []), '--die-with-parent', '--new-session', '--clearenv'],
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

/** Arguments for `/lib` and similar folders, which on most systems are links into `/usr`. */
function systemFolder(folder: string): string[] {
  if (!existsSync(folder)) return [];
  return lstatSync(folder).isSymbolicLink()
    ? ['--symlink', readlinkSync(folder), folder]
    : ['--ro-bind', folder, folder];
}

/**
 * Folders with the code of the process: the server's own package, and every `node_modules` folder above it. Their
 * sibling folders are excluded, because they may contain the configuration or the data.
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
