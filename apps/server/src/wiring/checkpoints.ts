import path from 'node:path';
import type { Seeds } from '../baselines/baselines.ts';
import { Checkpoints } from '../checkpoints/checkpoints.ts';
import { Generator } from '../checkpoints/generate.ts';
import type { ModelWorker } from '../checkpoints/itwinjs/modelWorker.ts';
import { RemoteWorker } from '../checkpoints/itwinjs/service/remoteWorker.ts';
import { isITwinJsInstalled, localWorker } from '../checkpoints/itwinjs/workerProcess.ts';
import { Workers } from '../checkpoints/itwinjs/workers.ts';
import type { ModelFiles } from '../checkpoints/modelFiles.ts';
import { deriveHandler } from '../cloning/deriveJob.ts';
import type { Config } from '../config.ts';
import { Drawer } from '../graphics/drawer.ts';
import { GraphicsSchedule } from '../graphics/rows.ts';
import type { Database } from '../db/database.ts';
import { exponentialBackoff, type Jobs } from '../operations/jobs.ts';
import type { Quotas } from '../quotas/quotas.ts';
import type { Blobs } from '../storage/blobs.ts';

/** Longest wait between two attempts of a job that needs iTwin.js, milliseconds. */
const longestRetryMs = 60_000;

interface GeneratorParts {
  database: Database;
  blobs: Blobs;
  modelFiles: ModelFiles;
  checkpoints: Checkpoints;
  seeds: Seeds;
  quotas: Quotas;
  jobs: Jobs;
  /** Folder for the temporary files of the workers. */
  workDir: string;
}

/** Whether any server of this installation generates checkpoints. */
function generatesAnywhere(config: Config): boolean {
  const { generate } = config.checkpoints;
  return generatesHere(config) || generate === 'elsewhere' || (!config.jobs.here && generate !== 'off');
}

/** Whether this server itself generates checkpoints, with iTwin.js in processes of its own or in the iTwin.js service. */
function generatesHere({ jobs, checkpoints: { generate, service } }: Config): boolean {
  return jobs.here && (generate === 'here' || (generate === 'auto' && (service !== undefined || isITwinJsInstalled())));
}

/** The schedule of checkpoints, which is enabled if any server of the installation generates them. */
export function wireCheckpoints(config: Config, database: Database): Checkpoints {
  const { everyChangesets, delaySeconds } = config.checkpoints;
  return new Checkpoints(database, {
    enabled: generatesAnywhere(config),
    every: everyChangesets,
    delayMs: delaySeconds * 1000,
    // The iTwin.js service makes model files only.
    graphics: new GraphicsSchedule(
      config.graphics.enabled && config.checkpoints.service === undefined && generatesAnywhere(config),
      config.graphics.enabled && config.checkpoints.service !== undefined
        ? 'This installation draws no iModels: its iTwin.js service makes checkpoints only.'
        : undefined,
    ),
  });
}

/** Registers the jobs that need iTwin.js. @returns undefined for both if this server does not run them */
export function wireGenerator(
  config: Config,
  { modelFiles: files, jobs, workDir, seeds, quotas, ...parts }: GeneratorParts,
): { workers: Workers | undefined; generator: Generator | undefined } {
  if (!generatesHere(config)) return { workers: undefined, generator: undefined };
  const { slots, attempts, firstRetrySeconds } = config.checkpoints;
  const workers = new Workers(workDir, slots, (folder, slot) => modelWorker(config.checkpoints, folder, slot));
  const retries = { attempts, backoffMs: exponentialBackoff(firstRetrySeconds * 1000, longestRetryMs) };
  const generator = new Generator({ ...parts, files, workers, retries });
  jobs.handle(slots, [deriveHandler({ ...parts, files, generator, seeds, quotas, retries }), generator.handler()]);
  return { workers, generator };
}

/** Registers the job that draws. @returns undefined if this server does not run it */
export function wireDrawer(
  config: Config,
  {
    database,
    blobs,
    modelFiles,
    jobs,
    workDir,
  }: Pick<GeneratorParts, 'database' | 'blobs' | 'modelFiles' | 'jobs' | 'workDir'>,
): Drawer | undefined {
  if (!config.graphics.enabled || config.checkpoints.service !== undefined || !generatesHere(config)) return undefined;
  const backoffMs = exponentialBackoff(config.checkpoints.firstRetrySeconds * 1000, longestRetryMs);
  const folder = path.join(workDir, 'graphics');
  const drawer = new Drawer({ database, blobs, modelFiles, config, folder, backoffMs });
  // A pool of its own: no drawing ever delays a checkpoint.
  jobs.handle(config.graphics.slots, [drawer.handler()]);
  return drawer;
}

/** Runs iTwin.js in the iTwin.js service if one is configured, otherwise in a process of this server. */
function modelWorker(config: Config['checkpoints'], folder: string, slot: number): ModelWorker {
  if (config.service === undefined) return localWorker(config, folder, slot);
  const { url, key = '' } = config.service;
  return new RemoteWorker({ url, key }, config.isolation, config.workSeconds * 1000);
}
