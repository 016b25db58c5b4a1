import { randomBytes, randomUUID } from 'node:crypto';
import { rmSync } from 'node:fs';
import { appendFile } from 'node:fs/promises';
import path from 'node:path';
import { prepareSource } from '../../apps/server/src/bench/clone.ts';
import { fill } from '../../apps/server/src/bench/crossStore.ts';
import { blockBytes, ModelFiles } from '../../apps/server/src/checkpoints/modelFiles.ts';
import type { Caller } from '../../apps/server/src/domain.ts';
import { nobodysAccount } from '../../apps/server/src/quotas/accounts.ts';
import type { Services } from '../../apps/server/src/services.ts';
import { emptyIModel } from '../installation.ts';
import type { Scale } from './peers.ts';

/** The iModels that are read, cloned and copied. */
export interface Sources {
  /** With `changesets` changesets that share one file. */
  historyId: string;
  /** With a file for each changeset. */
  modelId: string;
  /** Its files in the folder of the store: the baseline, then one for each changeset. */
  modelFiles: string[];
  /** With one large changeset, and its file in the folder of the store. */
  largeId: string;
  largeFile: string;
  /** With a checkpoint, unless the measurement is quick. */
  checkpoint: { iModelId: string; blockIds: string[]; blockFiles: string[]; size: number } | null;
}

export const changesets = 1000;
const pageSize = 100;
const fileBytes = 20_000;
const checkpointBlocks = 16;

export async function fillSources(services: Services, caller: Caller, iTwinId: string, scale: Scale): Promise<Sources> {
  const historyId = await prepareSource(services, caller, iTwinId, { changesets, depth: 1 });
  if (!scale.quick) for (let n = 0; n < pageSize; n++) await emptyIModel(services, caller, iTwinId);
  const modelId = await emptyIModel(services, caller, iTwinId);
  const keys = await fill(services, modelId, caller.user.id, scale.files, fileBytes);
  const baseline = await services.database.db
    .selectFrom('imodel as m')
    .innerJoin('baseline as s', 's.id', 'm.baseline_id')
    .innerJoin('blob as b', 'b.id', 's.blob_id')
    .select('b.key')
    .where('m.id', '=', modelId)
    .executeTakeFirstOrThrow();
  const largeId = await emptyIModel(services, caller, iTwinId);
  const [largeKey = ''] = await fill(services, largeId, caller.user.id, 1, scale.megabytes * 1_000_000);
  return {
    historyId,
    modelId,
    modelFiles: [baseline.key as string, ...keys].map(fileOf),
    largeId,
    largeFile: fileOf(largeKey),
    checkpoint: scale.quick ? null : await addCheckpoint(services, await emptyIModel(services, caller, iTwinId)),
  };
}

/** Where the folder store keeps a file, relative to its `objects`. */
const fileOf = (key: string): string => path.join(key.slice(0, 2), key);

/** Gives an iModel a checkpoint of random blocks. Only its first block contains ids. */
async function addCheckpoint(services: Services, iModelId: string): Promise<NonNullable<Sources['checkpoint']>> {
  const { database, blobs, config } = services;
  const file = path.join(config.dataDir, 'checkpoint.bim');
  for (let n = 0; n < checkpointBlocks; n++) await appendFile(file, randomBytes(blockBytes));
  const files = new ModelFiles(database, blobs);
  const offsets = { iModelIdOffset: 1000, iTwinIdOffset: 2000 };
  const stored = await files.store(blobs.stores.home, nobodysAccount, file, offsets, undefined);
  rmSync(file);
  await database.db.transaction().execute(async (tx) => {
    // iModels without a baseline file of their own share one, and its checkpoint.
    const { blob_id, state } = await tx
      .selectFrom('baseline as s')
      .innerJoin('imodel as m', 'm.baseline_id', 's.id')
      .select(['s.blob_id', 's.state'])
      .where('m.id', '=', iModelId)
      .executeTakeFirstOrThrow();
    const baselineId = randomUUID();
    await tx.insertInto('baseline').values({ id: baselineId, blob_id, state, created_at: Date.now() }).execute();
    await tx.updateTable('imodel').set({ baseline_id: baselineId }).where('id', '=', iModelId).execute();
    const fileId = await files.record(tx, stored);
    await tx
      .insertInto('checkpoint')
      .values({
        id: randomUUID(),
        segment_id: null,
        baseline_id: baselineId,
        changeset_index: 0,
        state: 'successful',
        file_id: fileId,
        applied: 0,
        to_apply: 0,
        failure_reason: null,
        created_at: Date.now(),
        finished_at: Date.now(),
      })
      .execute();
  });
  const rows = await database.db
    .selectFrom('block as k')
    .innerJoin('blob as b', 'b.id', 'k.blob_id')
    .select(['k.id', 'b.key'])
    .where('k.id', 'in', stored.blockIds)
    .execute();
  const keys = new Map(rows.map(({ id, key }) => [id, key as string]));
  // The first block has another name for each iModel.
  const blockIds = stored.blockIds.slice(1);
  return { iModelId, blockIds, blockFiles: blockIds.map((id) => fileOf(keys.get(id) as string)), size: stored.size };
}
