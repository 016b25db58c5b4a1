import type { FastifyBaseLogger } from 'fastify';
import type { Seeds } from '../baselines/baselines.ts';
import type { Checkpoints } from '../checkpoints/checkpoints.ts';
import type { Config } from '../config.ts';
import type { Database } from '../db/database.ts';
import { deliveryHandler } from '../events/deliver.ts';
import { Jobs } from '../operations/jobs.ts';
import type { Quotas } from '../quotas/quotas.ts';
import type { Blobs } from '../storage/blobs.ts';
import { BlobCopier } from '../transfer/blobCopier.ts';
import { transferCheckpointsHandler } from '../transfer/checkpoints.ts';
import { transferFilesHandler } from '../transfer/files.ts';

/** Messages that this server posts to webhooks at the same time. */
const deliverySlots = 8;

interface TransferServices {
  database: Database;
  blobs: Blobs;
  seeds: Seeds;
  checkpoints: Checkpoints;
  quotas: Quotas;
}

/** The job engine, with the handler of webhook deliveries if this server runs it. */
export function wireJobs(config: Config, database: Database, log: FastifyBaseLogger): Jobs {
  const leaseMs = config.jobs.leaseSeconds * 1000;
  const jobs = new Jobs(database, log, {
    lease: leaseMs,
    renew: leaseMs / 3,
    progress: config.jobs.progressSeconds * 1000,
  });
  if (config.jobs.here && config.webhooks.here)
    jobs.handle(deliverySlots, [deliveryHandler(database, config.webhooks)]);
  return jobs;
}

/** Registers the jobs that copy iModels into other data centers. */
export function wireTransfers(config: Config, jobs: Jobs, services: TransferServices): void {
  const { slots, bytesPerSecond } = config.transfers;
  if (!config.jobs.here || slots === 0) return;
  const parts = { ...services, copier: new BlobCopier(services.blobs, bytesPerSecond), config: config.transfers };
  jobs.handle(slots, [transferFilesHandler(parts), transferCheckpointsHandler(parts)]);
}
