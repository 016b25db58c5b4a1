import type { Seeds } from '../baselines/baselines.ts';
import type { Checkpoints } from '../checkpoints/checkpoints.ts';
import type { Config } from '../config.ts';
import type { Database } from '../db/database.ts';
import type { Quotas } from '../quotas/quotas.ts';
import type { Blobs } from '../storage/blobs.ts';
import type { BlobCopier } from './blobCopier.ts';

/** What both jobs of a transfer work with. */
export interface TransferParts {
  database: Database;
  blobs: Blobs;
  copier: BlobCopier;
  seeds: Seeds;
  checkpoints: Checkpoints;
  quotas: Quotas;
  config: Config['transfers'];
}
