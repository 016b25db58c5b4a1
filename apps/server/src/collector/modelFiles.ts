import { deleteModelFile } from '../checkpoints/modelFiles.ts';
import type { Database } from '../db/database.ts';
import { releaseBlobs } from '../storage/blobs.ts';
import { chunk, timeOf, unlessInUse, type CollectorOptions } from './step.ts';

/** Deletes model files that no checkpoint uses. @returns how many */
export async function deleteModelFiles({ db }: Database, { signal }: CollectorOptions): Promise<number> {
  let deleted = 0;
  for (;;) {
    signal?.throwIfAborted();
    const files = await db
      .selectFrom('model_file as f')
      .select('f.id')
      .where((eb) =>
        eb.not(eb.exists(eb.selectFrom('checkpoint as c').select('c.id').whereRef('c.file_id', '=', 'f.id'))),
      )
      .limit(chunk)
      .execute();
    for (const { id } of files) await db.transaction().execute((tx) => deleteModelFile(tx, id));
    deleted += files.length;
    if (files.length < chunk) return deleted;
  }
}

/** Deletes blocks that no model file contains, except young ones that a running job may be about to use. @returns how many */
export async function deleteBlocks({ db }: Database, options: CollectorOptions): Promise<number> {
  const { uploadLifeMs, signal } = options;
  let deleted = 0;
  for (;;) {
    const blocks = await db
      .selectFrom('block as k')
      .innerJoin('blob as b', 'b.id', 'k.blob_id')
      .select(['k.id', 'k.blob_id'])
      .where('b.created_at', '<', timeOf(options) - uploadLifeMs)
      .where((eb) =>
        eb.not(
          eb.exists(eb.selectFrom('model_file_block as f').select('f.file_id').whereRef('f.block_id', '=', 'k.id')),
        ),
      )
      .limit(chunk)
      .execute();
    for (const { id, blob_id } of blocks) {
      signal?.throwIfAborted();
      // A job that starts to use the block at this moment keeps it, by its foreign key.
      deleted += await unlessInUse(() =>
        db.transaction().execute(async (tx) => {
          const { numDeletedRows } = await tx.deleteFrom('block').where('id', '=', id).executeTakeFirst();
          await releaseBlobs(tx, [blob_id], Date.now());
          return Number(numDeletedRows);
        }),
      );
    }
    if (blocks.length < chunk) return deleted;
  }
}
