import { rmSync } from 'node:fs';
import { Command } from 'commander';
import pino from 'pino';
import { IsolationError } from '../checkpoints/itwinjs/isolation.ts';
import { isITwinJsInstalled, localWorker } from '../checkpoints/itwinjs/workerProcess.ts';
import { Workers } from '../checkpoints/itwinjs/workers.ts';
import { serviceKeyName } from '../config.ts';
import { openDataFolder, openWorkFolder } from '../wiring/dataFolder.ts';
import { startITwinJsService } from '../checkpoints/itwinjs/service/service.ts';
import { version } from '../version.ts';
import { closeOnSignal } from './ending.ts';
import { exitCodes, ExitError } from './exit.ts';
import { serviceSettings, type ServiceOptions } from './serviceSettings.ts';

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
  const { config, key } = serviceSettings(options, {
    name: 'iTwin.js service',
    keyName: serviceKeyName,
    keyOf: ({ checkpoints }) => checkpoints.service?.key,
  });
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
