import { blockBytes } from '../checkpoints/modelFiles.ts';
import type { Database } from '../db/database.ts';
import type { IModelTable } from '../db/schema.ts';
import {
  baselineBytes,
  changesetBytes,
  checkpointBytes,
  commonPart,
  graphicsBytes,
  thumbnailBytes,
  type Bytes,
} from '../db/statements/storageUse.ts';

/** Histories that are visited at most, and changesets and blocks of checkpoints that are added up at most. */
const most = { histories: 1000, changesets: 200_000, blocks: 500_000 };

export interface StorageUse extends Bytes {
  parts: Record<'baseline' | 'changesets' | 'checkpoints' | 'graphics' | 'thumbnail', Bytes>;
  /** The last changeset that others need too. */
  sharedUpToIndex: number;
  /** False if a part of it was left out because it is too large. */
  complete: boolean;
}

/** The bytes that an iModel needs, by whether anything else needs them too. Reads beside the requests. */
export async function storageUse({ scans }: Database, imodel: IModelTable): Promise<StorageUse> {
  const { sharedUpTo, first: reached } =
    imodel.history_id === null ? { sharedUpTo: 0, first: 1 } : await commonPart(scans, imodel, most.histories);
  const first = Math.max(reached, imodel.head_index - most.changesets + 1);
  const common = { sharedUpTo, first };
  const baseline = await baselineBytes(scans, imodel);
  const options = { blockBytes, baselineIsOwn: baseline.shared === 0, limit: most.blocks };
  const checkpoints = await checkpointBytes(scans, imodel, common, options);
  const parts = {
    baseline,
    changesets: await changesetBytes(scans, imodel, common),
    checkpoints: checkpoints.bytes,
    graphics: await graphicsBytes(scans, imodel, common, options.baselineIsOwn),
    thumbnail: await thumbnailBytes(scans, imodel.id),
  };
  const total = (which: keyof Bytes): number => Object.values(parts).reduce((sum, part) => sum + part[which], 0);
  return {
    own: total('own'),
    shared: total('shared'),
    cloneOnly: total('cloneOnly'),
    parts,
    sharedUpToIndex: sharedUpTo,
    complete: first === 1 && checkpoints.complete,
  };
}
