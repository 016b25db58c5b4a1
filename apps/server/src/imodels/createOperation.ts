import { randomUUID } from 'node:crypto';
import { compiledQuery } from '../db/compiledQuery.ts';
import type { Tx } from '../db/database.ts';
import { defer } from '../db/deferred.ts';
import type { OperationTable } from '../db/schema.ts';

/** Inserts the create operation of an iModel; columns that are not given are null or 0. */
export async function insertOperation(
  tx: Tx,
  operation: Pick<OperationTable, 'imodel_id' | 'kind' | 'state' | 'changesets' | 'created_at' | 'finished_at'> &
    Partial<OperationTable>,
): Promise<void> {
  const row: OperationTable = {
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
  };
  await defer(tx, insertRow.run(tx, row));
}

const insertRow = compiledQuery((db, row: OperationTable) =>
  db.insertInto('operation').values({
    id: row.id,
    imodel_id: row.imodel_id,
    kind: row.kind,
    state: row.state,
    changesets: row.changesets,
    created_at: row.created_at,
    finished_at: row.finished_at,
    cloned_from_imodel_id: row.cloned_from_imodel_id,
    cloned_from_changeset_id: row.cloned_from_changeset_id,
    forked_from_imodel_id: row.forked_from_imodel_id,
    forked_from_changeset_id: row.forked_from_changeset_id,
    relationship_id: row.relationship_id,
    failure_reason: row.failure_reason,
    changesets_done: row.changesets_done,
    bytes: row.bytes,
    bytes_done: row.bytes_done,
    bytes_under_way: row.bytes_under_way,
  }),
);
