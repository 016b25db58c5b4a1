import { sql } from 'kysely';
import { BoundedCache } from '../boundedCache.ts';
import { compiledQuery } from '../db/compiledQuery.ts';
import type { Db, Tx } from '../db/database.ts';
import { defer } from '../db/deferred.ts';
import { orderedId } from '../db/orderedId.ts';
import type { AuditTable } from '../db/schema.ts';
import type { Caller } from '../domain.ts';
import { outageOf } from '../outages.ts';

/** Records who did what, in the transaction that does it. */
export async function audit(
  tx: Tx | Db,
  caller: Caller,
  entry: { at: number; action: string; iTwinId: string; iModelId?: string; detail?: Record<string, unknown> },
): Promise<void> {
  const row: AuditTable = {
    id: orderedId(),
    at: entry.at,
    actor_id: caller.user.id,
    application_id: caller.application.id,
    action: entry.action,
    itwin_id: entry.iTwinId,
    imodel_id: entry.iModelId ?? null,
    detail: JSON.stringify(entry.detail ?? {}),
  };
  await defer(tx, insertEntry.run(tx, row));
}

const insertEntry = compiledQuery((db, row: AuditTable) =>
  db.insertInto('audit').values({
    id: row.id,
    at: row.at,
    actor_id: row.actor_id,
    application_id: row.application_id,
    action: row.action,
    itwin_id: row.itwin_id,
    imodel_id: row.imodel_id,
    detail: row.detail,
  }),
);

/** Minimum time between two entries for the same refused operation of a user, milliseconds: refused requests must not fill the database. */
const refusalsEveryMs = 60_000;

/** Records requests refused for lack of permission on an existing iTwin or iModel, visible to the caller or not. */
export class Refusals {
  readonly #db: Db;
  readonly #recorded = new BoundedCache<string, true>(10_000, { ttl: refusalsEveryMs });

  constructor(db: Db) {
    this.#db = db;
  }

  async note(
    caller: Caller,
    {
      operationId,
      code,
      iTwinId,
      iModelId,
    }: { operationId: string; code: string; iTwinId: string; iModelId: string | undefined },
  ): Promise<void> {
    const key = JSON.stringify([caller.user.id, caller.application.id, operationId, code, iModelId ?? iTwinId]);
    if (this.#recorded.has(key)) return;
    this.#recorded.set(key, true);
    try {
      await audit(this.#db, caller, {
        at: Date.now(),
        action: 'refused',
        iTwinId,
        ...(iModelId !== undefined && { iModelId }),
        detail: { operation: operationId, code },
      });
    } catch (error) {
      // On a full disk the request is still refused, without an entry.
      if (outageOf(error) !== 'noSpace') throw error;
    }
  }
}

/** Which entries of the audit log to read; absent criteria match every entry. */
export interface AuditFilter {
  iTwinId?: string | undefined;
  iModelId?: string | undefined;
  actorId?: string | undefined;
  /** For example `iModel.delete`, or `iModel.` for all actions with this prefix. */
  action?: string | undefined;
  /** Milliseconds since 1970; `since` is inclusive, `until` exclusive. */
  since?: number | undefined;
  until?: number | undefined;
}

/** An entry with the verified e-mail address of its actor, if there is one. */
export type AuditEntry = AuditTable & { actor_email: string | null };

/** Number of entries per statement. */
const chunk = 1000;

/** Reads the audit log, oldest first. */
export async function* readAudit(db: Db, filter: AuditFilter): AsyncIterable<AuditEntry> {
  const { iTwinId, iModelId, actorId, action, since, until } = filter;
  let last: AuditEntry | undefined;
  for (;;) {
    let query = db
      .selectFrom('audit as a')
      .leftJoin('user_account as u', 'u.id', 'a.actor_id')
      .selectAll('a')
      .select('u.verified_email as actor_email')
      .orderBy('a.at')
      .orderBy('a.id')
      .limit(chunk);
    if (iTwinId !== undefined) query = query.where('a.itwin_id', '=', iTwinId);
    if (iModelId !== undefined) query = query.where('a.imodel_id', '=', iModelId);
    if (actorId !== undefined) query = query.where('a.actor_id', '=', actorId);
    if (action?.endsWith('.') === true)
      query = query.where('a.action', '>=', action).where('a.action', '<', `${action.slice(0, -1)}/`);
    else if (action !== undefined) query = query.where('a.action', '=', action);
    if (since !== undefined) query = query.where('a.at', '>=', since);
    if (until !== undefined) query = query.where('a.at', '<', until);
    const { at, id } = last ?? {};
    if (at !== undefined && id !== undefined) query = query.where(sql<boolean>`(a.at, a.id) > (${at}, ${id})`);
    const entries = await query.execute();
    yield* entries;
    if (entries.length < chunk) return;
    last = entries.at(-1);
  }
}

/** Removes entries older than `before` (ms since 1970), in small transactions that block others only briefly. @returns how many */
export async function removeOldAudit(db: Db, before: number, signal: AbortSignal): Promise<number> {
  let removed = 0;
  while (!signal.aborted) {
    const { numDeletedRows } = await db
      .deleteFrom('audit')
      .where('id', 'in', (eb) =>
        eb.selectFrom('audit').select('id').where('at', '<', before).orderBy('at').limit(chunk),
      )
      .executeTakeFirstOrThrow();
    removed += Number(numDeletedRows);
    if (Number(numDeletedRows) < chunk) break;
  }
  return removed;
}
