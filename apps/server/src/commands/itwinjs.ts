import { rmSync } from 'node:fs';
import { Command } from 'commander';
import pino from 'pino';
import { IsolationError } from '../checkpoints/itwinjs/isolation.ts';
import { isITwinJsInstalled, localWorker } from '../checkpoints/itwinjs/workerProcess.ts';
import { Workers } from '../checkpoints/itwinjs/workers.ts';
import { ConfigError, loadConfig, serviceKeyName, shortestServiceKey } from '../config.ts';
import { openDataFolder, openWorkFolder } from '../wiring/dataFolder.ts';
import { startITwinJsService } from '../checkpoints/itwinjs/service/service.ts';
import { version } from '../version.ts';
import { closeOnSignal } from './ending.ts';
import { exitCodes, ExitError } from './exit.ts';

interface ServiceOptions {
  data?: string;
  host?: string;
  port?: string;
  config?: string;
}

/** `offshoot itwinjs`: runs iTwin.js for the servers of an installation until SIGINT or SIGTERM. */
export function iTwinJsCommand(): Command {
  return new Command('itwinjs')
    .description(
      `Run the iTwin.js service for servers and workers (setting checkpoints.service). It receives and returns files, and needs ${serviceKeyName} but no database and no store.`,
    )
    .option('--data <folder>', 'folder for temporary files')
    .option('--host <address>', 'address to listen on; localhost by default, 0.0.0.0 for all interfaces')
    .option('--port <number>', 'port to listen on; 0 selects a free port')
    .option('--config <file>', 'configuration file (offshoot.json)')
    .action(run);
}

async function run(options: ServiceOptions): Promise<void> {
  const { config, key } = settingsOf(options);
  if (!isITwinJsInstalled())
    throw new ExitError(
      exitCodes.failed,
      'iTwin.js is not installed, or its native part for this platform is missing.',
    );
  openDataFolder(config.dataDir);
  const workDir = openWorkFolder(config.dataDir, 'beside others');
  const workers = new Workers(workDir, config.checkpoints.slots, (folder, slot) =>
    localWorker(config.checkpoints, folder, slot),
  );
  const level = await workers.level().catch((error: unknown) => {
    throw error instanceof IsolationError ? new ExitError(exitCodes.failed, error.message, error) : error;
  });
  const service = await startITwinJsService({
    workers,
    key,
    slots: config.checkpoints.slots,
    host: config.host,
    port: config.port,
    log: pino({ level: config.logLevel }),
  });
  process.stdout.write(
    `\nOffshoot ${version}: iTwin.js ${await workers.version()} for other servers\n\n  Address      ${service.origin}\n  Isolation    ${level}\n\n`,
  );
  process.send?.({ origin: service.origin });
  const close = async (): Promise<void> => {
    await service.close();
    rmSync(workDir, { recursive: true, force: true });
  };
  closeOnSignal({ close, kill: () => workers.kill(), graceMs: config.shutdownSeconds * 1000 });
}

/** @throws ExitError usage when the settings do not suit a service */
function settingsOf({ data, host, port, config: file }: ServiceOptions) {
  try {
    const overrides = {
      ...(data !== undefined && { dataDir: data }),
      ...(host !== undefined && { host }),
      ...(port !== undefined && { port: Number(port) }),
    };
    const config = loadConfig(overrides, file === undefined ? {} : { file });
    const key = process.env[serviceKeyName] ?? config.checkpoints.service?.key ?? '';
    const faults: string[] = [];
    if (key.length < shortestServiceKey)
      faults.push(`${serviceKeyName} is missing or shorter than ${shortestServiceKey} characters`);
    // A hostile file that takes over this process must find no database address here.
    if (config.databaseUrl !== undefined)
      faults.push(
        'databaseUrl is set: the iTwin.js service does not use the database, and must not be given its address',
      );
    if (faults.length > 0) throw new ConfigError(faults);
    return { config, key };
  } catch (error) {
    throw error instanceof ConfigError ? new ExitError(exitCodes.usage, error.message, error) : error;
  }
}
