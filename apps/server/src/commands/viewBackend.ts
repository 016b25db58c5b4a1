import { rmSync } from 'node:fs';
import { Command } from 'commander';
import pino from 'pino';
import { viewerKeyName } from '../config.ts';
import { version } from '../version.ts';
import { openDataFolder, openWorkFolder } from '../wiring/dataFolder.ts';
import { isViewerInstalled } from '../viewer/installed.ts';
import { closeOnSignal } from './ending.ts';
import { exitCodes, ExitError } from './exit.ts';
import { serviceSettings, type ServiceOptions } from './serviceSettings.ts';

interface ViewBackendOptions extends ServiceOptions {
  server: string;
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
  const server = options.server.replace(/\/$/, '');
  const isAddress = /^https?:\/\/[^/]/.test(server) && URL.canParse(server);
  const { config, key } = serviceSettings(options, {
    name: 'view back end',
    keyName: viewerKeyName,
    keyOf: ({ viewer }) => viewer.service?.key,
    faults: isAddress ? [] : ['--server must be an address such as https://offshoot.example.com'],
  });
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
    pino({ level: config.logLevel }),
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
