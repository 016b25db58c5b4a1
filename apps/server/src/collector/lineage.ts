import { sql } from 'kysely';
import type { Tx } from '../db/database.ts';
import type { IModelTable } from '../db/schema.ts';
import { withoutDerived } from './orphans.ts';

/** Deleted ancestors that one transaction removes; a thorough run removes any that remain. */
const ancestorsAtOnce = 1000;

const keptColumns = [
  'id',
  'itwin_id',
  'lineage_id',
  'source_id',
  'source_kind',
  'source_index',
  'source_changeset_id',
  'created_at',
  'deleted_at',
] as const;

/** Keeps what the family of a deleted iModel needs to know of it. If nothing was derived from it, `dropLineage` removes it again. */
export async function keepLineage(tx: Tx, iModelId: string): Promise<void> {
  await tx
    .insertInto('deleted_imodel')
    .columns(keptColumns)
    .expression((eb) => eb.selectFrom('imodel').select(keptColumns).where('id', '=', iModelId))
    .execute();
}

/** Removes the row of a deleted iModel unless another one was derived from it, and then those of its deleted ancestors likewise. */
export async function dropLineage(tx: Tx, imodel: Pick<IModelTable, 'id'>): Promise<void> {
  let id: string | null = imodel.id;
  for (let count = 0; id !== null && count < ancestorsAtOnce; count++) {
    const { rows }: { rows: { source_id: string | null }[] } = await sql<{
      source_id: string | null;
    }>`delete from deleted_imodel where id = ${id} and ${withoutDerived} returning source_id`.execute(tx);
    id = rows[0]?.source_id ?? null;
  }
}
