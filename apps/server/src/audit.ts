import { randomUUID } from 'node:crypto';
import type { Tx } from './db/database.ts';
import type { Caller } from './domain.ts';

/** Notes who did what, in the transaction that does it. */
export async function audit(
  tx: Tx,
  caller: Caller,
  entry: { at: number; action: string; iTwinId: string; iModelId?: string; detail?: Record<string, unknown> },
): Promise<void> {
  await tx
    .insertInto('audit')
    .values({
      id: randomUUID(),
      at: entry.at,
      actor_id: caller.user.id,
      application_id: caller.application.id,
      action: entry.action,
      itwin_id: entry.iTwinId,
      imodel_id: entry.iModelId ?? null,
      detail: JSON.stringify(entry.detail ?? {}),
    })
    .execute();
}
