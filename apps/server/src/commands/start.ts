import path from 'node:path';
import { Command } from 'commander';
import { administratorClaims, waysToAdminister } from '../access/administrators.ts';
import { passwordPath, signInBase, signInPath, SignInRefusedError } from '../access/signInIssuer.ts';
import { startServer, type RunningServer } from '../app.ts';
import { ConfigError, loadConfig, type ConfigInput } from '../config.ts';
import { DataFolderError } from '../wiring/dataFolder.ts';
import { freeMemoryWhenIdle } from '../wiring/idleMemory.ts';
import { DataFolderInUseError, NewerSchemaError } from '../db/database.ts';
import { ForeignStoreError, OtherStoreError, StoreUnavailableError } from '../storage/stores.ts';
import { ensureFirstITwin } from '../wiring/firstITwin.ts';
import { PublicError } from '../operations/reasons.ts';
import type { Services } from '../services.ts';
import { version } from '../version.ts';
import { IsolationError } from '../checkpoints/itwinjs/isolation.ts';
import type { IsolationLevel } from '../domain.ts';
import { closeOnSignal, endInTime, type Ending } from './ending.ts';
import { exitCodes, ExitError } from './exit.ts';
import { mintToken } from './token.ts';

interface StartOptions {
  data?: string;
  host?: string;
  port?: string;
  publicUrl?: string;
  databaseUrl?: string;
  config?: string;
  json?: boolean;
}

/** `offshoot start`: runs the server until SIGINT or SIGTERM. */
export function startCommand(): Command {
  return withOptions(
    new Command('start').description(
      'Start the server. By default it uses SQLite and files in ./offshoot-data and listens on http://localhost:4700.',
    ),
  )
    .option('--public-url <url>', 'address of the server in links, such as https://imodels.example.com')
    .option(
      '--json',
      'when the server is ready, print one line {"origin","iTwinId","token"} and nothing else to stdout; the log goes to stderr',
    )
    .action((options: StartOptions) => run(options, 'server'));
}

/** `offshoot work`: runs the jobs of an installation, without the API, until SIGINT or SIGTERM. */
export function workCommand(): Command {
  return withOptions(
    new Command('work').description(
      'Run a worker without the API: it generates checkpoints, copies iModels into other data centers and delivers webhooks for an installation on PostgreSQL. Start as many as you need; each serves /health and /metrics.',
    ),
  ).action((options: StartOptions) => run(options, 'worker'));
}

function withOptions(command: Command): Command {
  return command
    .option('--data <folder>', 'folder for the database, files, keys and users')
    .option('--host <address>', 'address to listen on; localhost by default, 0.0.0.0 for all interfaces')
    .option('--port <number>', 'port to listen on; 0 selects a free port')
    .option('--database-url <url>', 'PostgreSQL database to use instead of SQLite')
    .option('--config <file>', 'configuration file (offshoot.json)');
}

async function run(options: StartOptions, role: 'server' | 'worker'): Promise<void> {
  const json = options.json === true;
  let server: RunningServer;
  try {
    const overrides: ConfigInput = {
      ...(options.data !== undefined && { dataDir: options.data }),
      ...(options.host !== undefined && { host: options.host }),
      ...(options.port !== undefined && { port: Number(options.port) }),
      ...(options.publicUrl !== undefined && { publicUrl: options.publicUrl }),
      ...(options.databaseUrl !== undefined && { databaseUrl: options.databaseUrl }),
      ...((json ? process.stderr : process.stdout).isTTY && { logPretty: true }),
    };
    const config = loadConfig(overrides, options.config === undefined ? {} : { file: options.config });
    if (role === 'worker' && config.databaseUrl === undefined)
      throw new ConfigError([
        'databaseUrl is missing: a worker needs PostgreSQL; on SQLite the server runs the jobs itself',
      ]);
    server = await startServer(role === 'worker' ? { ...config, jobs: { ...config.jobs, here: true } } : config, {
      role,
      ...(json && { logTo: 'stderr' }),
    });
  } catch (error) {
    if (error instanceof ConfigError) throw new ExitError(exitCodes.usage, error.message, error);
    if (
      error instanceof DataFolderInUseError ||
      error instanceof NewerSchemaError ||
      error instanceof OtherStoreError ||
      error instanceof ForeignStoreError ||
      error instanceof StoreUnavailableError ||
      error instanceof DataFolderError
    )
      throw new ExitError(exitCodes.failed, error.message, error);
    if ((error as NodeJS.ErrnoException).code === 'EADDRINUSE')
      throw new ExitError(
        exitCodes.failed,
        `${(error as Error).message}. Something else listens there; choose another port with --port.`,
        error,
      );
    throw error;
  }
  const announcement = json
    ? readyLine(server)
    : (role === 'worker' ? workerLines(server) : serverLines(server)).then((lines) => banner(server, lines));
  const text = await announcement.catch(async (error: unknown) => {
    // The server is already listening. A server that did not start completely must neither answer nor keep the process
    // alive.
    endInTime(endingOf(server));
    await server.close();
    throw error;
  });
  process.stdout.write(text);
  // Tells the parent process (a benchmark or a test) the address.
  if (process.connected) process.send?.({ origin: server.origin });

  closeOnSignal(endingOf(server));
  freeMemoryWhenIdle(server.app.log);
}

function endingOf(server: RunningServer): Ending {
  const { config, workers } = server.services;
  return { close: () => server.close(), kill: () => workers?.kill(), graceMs: config.shutdownSeconds * 1000 };
}

/** Lifetime of the token in the ready line: that of a token of `offshoot token`. */
const readyTokenSeconds = 86_400;

/**
 * The line that `offshoot start --json` prints, for programs: one JSON object. `iTwinId` is null if the installation has
 * several iTwins or none, `token` is null without the embedded issuer or without a user in the users file.
 */
async function readyLine({ app, origin, services }: RunningServer): Promise<string> {
  const { config, directory } = services;
  const firstITwin = await ensureFirstITwin(services);
  const hasUser = config.embeddedIssuer && directory.data.users.length > 0;
  const token = hasUser ? await mintToken({ data: config.dataDir, lifeSeconds: readyTokenSeconds }) : null;
  app.log.info({ version, origin, dataDir: config.dataDir }, 'ready');
  return `${JSON.stringify({ origin, iTwinId: firstITwin?.id ?? null, token })}\n`;
}

type Line = [name: string, value: string];

function banner({ services: { config, blobs }, metricsOrigin }: RunningServer, own: readonly Line[]): string {
  const { stores } = blobs;
  const lines: Line[] = [
    [
      'Data',
      `${config.dataDir}${config.databaseUrl === undefined ? '' : ' and PostgreSQL'}${config.store.type === 'files' ? '' : `; files in ${stores.home.id}`}`,
    ],
    ...Object.keys(config.dataCenters).map((name): Line => [
      'Data center',
      `${name}: files in ${stores.ofDataCenter(name).id}`,
    ]),
    ...own,
    ...(metricsOrigin === undefined ? [] : [['Metrics', `${metricsOrigin}/metrics`] satisfies Line]),
  ];
  return `\nOffshoot ${version}\n\n${lines.map(([name, value]) => `  ${name.padEnd(13)}${value}`).join('\n')}\n\n`;
}

async function workerLines({ origin, services }: RunningServer): Promise<Line[]> {
  return [
    ['Worker', `its health: ${origin}/health`],
    ['Checkpoints', await checkpointsLine(services)],
  ];
}

async function serverLines({ origin, services }: RunningServer): Promise<Line[]> {
  const firstITwin = await ensureFirstITwin(services);
  const { config, directory } = services;
  const lines: Line[] = [
    ['Console', `${origin}/`],
    ['API', `${origin}/imodels`],
    ['Document', `${origin}/docs   (OpenAPI: ${origin}/openapi.json)`],
    ['Checkpoints', await checkpointsLine(services)],
  ];
  if (firstITwin !== undefined) lines.push(['iTwin', `${firstITwin.id}   ${firstITwin.name}`]);
  if (config.embeddedIssuer) {
    const elsewhere = config.dataDir === path.resolve('offshoot-data') ? '' : ` --data ${shellWord(config.dataDir)}`;
    lines.push(['Token', `npx offshoot token${elsewhere}   (users: ${directory.file})`]);
    lines.push(['Sign-in', await signInLine(origin, services)]);
  } else {
    const ways = waysToAdminister(config, directory.data);
    lines.push(
      ['Sign-in', `tokens of ${config.issuers.map(({ issuer }) => issuer).join(', ')}`],
      [
        'Admins',
        ways.length > 0
          ? ways.join('; ')
          : `nobody, unless a token has the claim ${administratorClaims(config)} (docs/sign-in.md, "The first administrator")`,
      ],
    );
  }
  return lines;
}

/** Where users sign in; for a new installation a link for its first administrator, which is good once and for a day. */
async function signInLine(origin: string, { accounts, config }: Services): Promise<string> {
  try {
    const authority = `${signInBase(config, origin)}${signInPath}`;
    const token = await accounts.firstLink();
    return token === undefined
      ? authority
      : `${authority}${passwordPath}?link=${token}   (sets the password of the first administrator)`;
  } catch (error) {
    if (error instanceof SignInRefusedError) return error.message;
    throw error;
  }
}

/** Quotes a word for the shell, so that the command can be copied from the terminal. */
function shellWord(text: string): string {
  if (/^[\w@%+=:,./~-]+$/.test(text) && !text.startsWith('~')) return text;
  return process.platform === 'win32' ? `"${text}"` : `'${text.replaceAll("'", `'\\''`)}'`;
}

/** Where checkpoints are generated, and how the native code that generates them is isolated. */
async function checkpointsLine({ workers, checkpoints, config }: Services): Promise<string> {
  if (workers === undefined)
    return checkpoints.enabled ? 'made by another server' : 'not made: iTwin.js is not installed, or switched off';
  const { service } = config.checkpoints;
  try {
    const words = isolationWords[await workers.level()];
    return service === undefined
      ? `made here, with iTwin.js, ${words}`
      : `made by the iTwin.js service at ${service.url}, ${words}`;
  } catch (error) {
    if (error instanceof IsolationError || error instanceof PublicError) return error.message;
    throw error;
  }
}

const isolationWords: Record<IsolationLevel, string> = {
  namespaces: 'isolated: it sees its own files only, and no network',
  user: 'as a user of its own (install bubblewrap to isolate it further)',
  process: 'in a process of its own (install bubblewrap to isolate it)',
};
