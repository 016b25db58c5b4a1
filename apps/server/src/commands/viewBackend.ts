import { rmSync } from 'node:fs';
import { Command } from 'commander';
import { ConfigError, loadConfig, shortestServiceKey, viewerKeyName } from '../config.ts';
import { version } from '../version.ts';
import { openDataFolder, openWorkFolder } from '../wiring/dataFolder.ts';
import { isViewerInstalled } from '../wiring/viewer.ts';
import { closeOnSignal } from './ending.ts';
import { exitCodes, ExitError } from './exit.ts';

interface ViewBackendOptions {
  server: string;
  data?: string;
  host?: string;
  port?: string;
  config?: string;
}

/** `offshoot view-backend`: answers the viewers of a server until SIGINT or SIGTERM. */
export function viewBackendCommand(): Command {
  return new Command('view-backend')
    .description(
      `Run the back end for viewers on its own (setting viewer.service of the server). It reads checkpoints from the server, and needs ${viewerKeyName} but no database and no store. The server checks permissions, so only the server may reach it.`,
    )
    .requiredOption('--server <url>', 'address of the server, from which it reads checkpoints')
    .option('--data <folder>', 'folder for blocks of checkpoints and temporary files')
    .option('--host <address>', 'address to listen on; localhost by default, 0.0.0.0 for all interfaces')
    .option('--port <number>', 'port to listen on; 0 selects a free port')
    .option('--config <file>', 'configuration file (offshoot.json); its section viewer applies')
    .action(run);
}

async function run(options: ViewBackendOptions): Promise<void> {
  const { config, key, server } = settingsOf(options);
  if (!isViewerInstalled())
    throw new ExitError(
      exitCodes.failed,
      'iTwin.js is not installed, or its native part for this platform is missing.',
    );
  openDataFolder(config.dataDir);
  const workDir = openWorkFolder(config.dataDir, 'beside others');
  const { runBackend } = await import('../viewer/worker/backend.ts');
  const { idleSeconds, maxCheckpoints, cacheMiB } = config.viewer;
  const backend = await runBackend(
    workDir,
    { key, server, idleMs: idleSeconds * 1000, maxCheckpoints, cacheMiB, host: config.host, port: config.port },
    () => undefined,
  );
  const host = config.host.includes(':') ? `[${config.host}]` : config.host;
  const origin = `http://${host}:${backend.port}`;
  process.stdout.write(
    `\nOffshoot ${version}: back end for viewers\n\n  Address      ${origin}\n  Server       ${server}\n\n`,
  );
  process.send?.({ origin });
  const close = async (): Promise<void> => {
    await backend.close();
    rmSync(workDir, { recursive: true, force: true });
  };
  closeOnSignal({ close, kill: () => undefined, graceMs: config.shutdownSeconds * 1000 });
}

/** @throws ExitError usage when the settings do not suit a back end */
function settingsOf({ server: text, data, host, port, config: file }: ViewBackendOptions) {
  try {
    const overrides = {
      ...(data !== undefined && { dataDir: data }),
      ...(host !== undefined && { host }),
      ...(port !== undefined && { port: Number(port) }),
    };
    const config = loadConfig(overrides, file === undefined ? {} : { file });
    const key = process.env[viewerKeyName] ?? config.viewer.service?.key ?? '';
    const server = text.replace(/\/$/, '');
    const faults: string[] = [];
    if (!/^https?:\/\/[^/]/.test(server) || !URL.canParse(server))
      faults.push('--server must be an address such as https://offshoot.example.com');
    if (key.length < shortestServiceKey)
      faults.push(`${viewerKeyName} is missing or shorter than ${shortestServiceKey} characters`);
    // Native code that a hostile model takes over must find no database address here.
    if (config.databaseUrl !== undefined)
      faults.push('databaseUrl is set: the view back end does not use the database, and must not be given its address');
    if (faults.length > 0) throw new ConfigError(faults);
    return { config, key, server };
  } catch (error) {
    throw error instanceof ConfigError ? new ExitError(exitCodes.usage, error.message, error) : error;
  }
}
