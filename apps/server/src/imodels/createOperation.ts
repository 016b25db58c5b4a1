import { randomUUID } from 'node:crypto';
import type { Tx } from '../db/database.ts';
import type { OperationTable } from '../db/schema.ts';

/** Inserts the create operation of an iModel; columns that are not given are null or 0. */
export async function insertOperation(
  tx: Tx,
  operation: Pick<OperationTable, 'imodel_id' | 'kind' | 'state' | 'changesets' | 'created_at' | 'finished_at'> &
    Partial<OperationTable>,
): Promise<void> {
  await tx
    .insertInto('operation')
    .values({
      id: randomUUID(),
      cloned_from_imodel_id: null,
      cloned_from_changeset_id: null,
      forked_from_imodel_id: null,
      forked_from_changeset_id: null,
      relationship_id: null,
      failure_reason: null,
      changesets_done: 0,
      bytes: 0,
      bytes_done: 0,
      bytes_under_way: 0,
      ...operation,
    })
    .execute();
}
