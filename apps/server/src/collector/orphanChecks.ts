import { setImmediate } from 'node:timers/promises';
import { deleteModelFile } from '../checkpoints/modelFiles.ts';
import type { Database, Db } from '../db/database.ts';
import type { OrphanCheckTable } from '../db/schema.ts';
import type { Selectable } from 'kysely';
import { PastFailures } from '../operations/pastFailures.ts';
import { releaseBlobs } from '../storage/blobs.ts';
import type { Collected } from './collect.ts';
import { checkSegment } from './segments.ts';
import { timeOf, unlessInUse, type CollectorOptions } from './step.ts';

/** Checks that are read at once. */
const atOnce = 100;

/** When a check that failed is made again. */
const retryMs = 3_600_000;

type Check = Selectable<OrphanCheckTable>;

/** Kinds of rows that are checked. */
export type OrphanKind = OrphanCheckTable['kind'];

/**
 * Looks at the rows that lost a reference, and deletes those that nothing refers to. Their deletion may take the last reference from
 * others, which are looked at then. The work is in proportion to what was deleted, in steps of at most a few milliseconds.
 */
export async function checkOrphans(database: Database, options: CollectorOptions, collected: Collected): Promise<void> {
  const { db } = database;
  const failures = new PastFailures(options.signal);
  for (;;) {
    const now = timeOf(options);
    const due = await db
      .selectFrom('orphan_check')
      .selectAll()
      .where('due_at', '<=', now)
      .orderBy('due_at')
      .limit(atOnce)
      .execute();
    if (due.length === 0) break;
    for (const checks of bySubject(due)) {
      const [{ kind, subject_id }] = checks;
      options.signal?.throwIfAborted();
      // SQLite answers without a turn of the event loop; requests get theirs here.
      await setImmediate();
      let dueAgain: number | undefined = now + retryMs;
      await failures.pass(async () => {
        dueAgain = await check(database, kind, subject_id, options, collected);
      });
      const ids = checks.map(({ id }) => id);
      if (dueAgain === undefined) await db.deleteFrom('orphan_check').where('id', 'in', ids).execute();
      else await db.updateTable('orphan_check').set({ due_at: dueAgain }).where('id', 'in', ids).execute();
    }
  }
  failures.end();
}

/** Has rows looked at by the next `checkOrphans`. */
export async function requestChecks(db: Db, kind: OrphanKind, subjectIds: readonly string[]): Promise<void> {
  if (subjectIds.length === 0) return;
  await db
    .insertInto('orphan_check')
    .values(subjectIds.map((subject_id) => ({ kind, subject_id, due_at: 0 })))
    .execute();
}

function bySubject(checks: readonly Check[]): [Check, ...Check[]][] {
  const groups = new Map<string, [Check, ...Check[]]>();
  for (const each of checks) {
    const key = `${each.kind} ${each.subject_id}`;
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [each]);
    else group.push(each);
  }
  return [...groups.values()];
}

/** @returns when the row has to be looked at again, ms since 1970; undefined if it is done */
async function check(
  database: Database,
  kind: OrphanKind,
  id: string,
  options: CollectorOptions,
  collected: Collected,
): Promise<number | undefined> {
  switch (kind) {
    case 'segment':
      await checkSegment(database, id, options, collected);
      return undefined;
    case 'modelFile':
      collected.modelFiles += await checkModelFile(database, id);
      return undefined;
    case 'block':
      return checkBlock(database, id, options, collected);
  }
}

/** Deletes a model file that no checkpoint uses. @returns how many were deleted */
async function checkModelFile({ db }: Database, id: string): Promise<number> {
  return db.transaction().execute(async (tx) => {
    const file = await tx
      .selectFrom('model_file as f')
      .select('f.id')
      .where('f.id', '=', id)
      .where((eb) =>
        eb.not(eb.exists(eb.selectFrom('checkpoint as c').select('c.id').whereRef('c.file_id', '=', 'f.id'))),
      )
      .executeTakeFirst();
    if (file === undefined) return 0;
    await deleteModelFile(tx, id);
    return 1;
  });
}

/** Deletes a block that no model file contains, except a young one that a running job may be about to use. */
async function checkBlock(
  { db }: Database,
  id: string,
  options: CollectorOptions,
  collected: Collected,
): Promise<number | undefined> {
  const block = await db
    .selectFrom('block as k')
    .innerJoin('blob as b', 'b.id', 'k.blob_id')
    .select(['k.blob_id', 'b.created_at'])
    .where('k.id', '=', id)
    .where((eb) =>
      eb.not(eb.exists(eb.selectFrom('model_file_block as f').select('f.file_id').whereRef('f.block_id', '=', 'k.id'))),
    )
    .executeTakeFirst();
  if (block === undefined) return undefined;
  const old = block.created_at + options.uploadLifeMs + 1;
  if (old > timeOf(options)) return old;
  // A job that starts to use the block at this moment keeps it, by its foreign key.
  collected.blocks += await unlessInUse(() =>
    db.transaction().execute(async (tx) => {
      const { numDeletedRows } = await tx.deleteFrom('block').where('id', '=', id).executeTakeFirst();
      await releaseBlobs(tx, [block.blob_id], Date.now());
      return Number(numDeletedRows);
    }),
  );
  return undefined;
}
