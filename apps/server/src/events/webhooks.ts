import { randomBytes, randomUUID } from 'node:crypto';
import { readPage, type Page, type PageRequest } from '../db/keysetPaging.ts';
import { audit } from '../access/audit.ts';
import type { Config } from '../config.ts';
import type { Database, Tx } from '../db/database.ts';
import type { JobTable } from '../db/schema.ts';
import type { WebhookTable } from '../db/schemaOfITwins.ts';
import type { Caller } from '../domain.ts';
import { ApiError } from '../errors.ts';
import { QuotaExceededError, type Quotas } from '../quotas/quotas.ts';
import { deliverJob } from './events.ts';

export interface WebhookRequest {
  callbackUrl: string;
  /** Generated if absent. */
  secret: string | undefined;
  eventTypes: readonly string[];
  isActive: boolean;
}

export interface WebhookChange {
  callbackUrl?: string | undefined;
  secret?: string | undefined;
  eventTypes?: readonly string[] | undefined;
  isActive?: boolean | undefined;
}

/** Webhooks of an iTwin, and their dead letters. */
export class Webhooks {
  readonly #database: Database;
  readonly #quotas: Quotas;
  readonly #perUser: number;

  constructor(database: Database, quotas: Quotas, { perUser }: Pick<Config['webhooks'], 'perUser'>) {
    this.#database = database;
    this.#quotas = quotas;
    this.#perUser = perUser;
  }

  /** @throws QuotaExceededError */
  async create(caller: Caller, iTwinId: string, request: WebhookRequest): Promise<WebhookTable> {
    const row: WebhookTable = {
      id: randomUUID(),
      itwin_id: iTwinId,
      callback_url: request.callbackUrl,
      secret: request.secret ?? randomBytes(32).toString('base64url'),
      event_types: JSON.stringify(request.eventTypes),
      is_active: request.isActive ? 1 : 0,
      creator_id: caller.user.id,
      created_at: Date.now(),
      failures: 0,
      paused_until: null,
    };
    return this.#database.db.transaction().execute(async (tx) => {
      await this.#requireRoom(tx, iTwinId, caller.user.id);
      await tx.insertInto('webhook').values(row).execute();
      await audit(tx, caller, {
        at: row.created_at,
        action: 'webhook.create',
        iTwinId,
        detail: { id: row.id, callbackUrl: row.callback_url },
      });
      return row;
    });
  }

  /** Rule of this server: the number of webhooks is limited, because each adds one message per event. */
  async #requireRoom(tx: Tx, iTwinId: string, userId: string): Promise<void> {
    if (this.#database.engine === 'postgres') {
      // Serializes concurrent creations, which would otherwise all pass the check.
      await tx.selectFrom('itwin').select('id').where('id', '=', iTwinId).forNoKeyUpdate().execute();
      await tx.selectFrom('user_account').select('id').where('id', '=', userId).forNoKeyUpdate().execute();
    }
    await this.#quotas.requireRoom(tx, 'webhooks', iTwinId);
    const { count } = await tx
      .selectFrom('webhook')
      .select((eb) => eb.fn.countAll<number>().as('count'))
      .where('creator_id', '=', userId)
      .executeTakeFirstOrThrow();
    if (Number(count) >= this.#perUser)
      throw new QuotaExceededError(`Maximum number of Webhooks per user limit reached: ${this.#perUser}.`);
  }

  async list(iTwinId: string): Promise<WebhookTable[]> {
    return this.#database.db
      .selectFrom('webhook')
      .selectAll()
      .where('itwin_id', '=', iTwinId)
      .orderBy('created_at')
      .orderBy('id')
      .execute();
  }

  /** @throws ApiError WebhookNotFound */
  async get(iTwinId: string, id: string | undefined): Promise<WebhookTable> {
    const row =
      id === undefined
        ? undefined
        : await this.#database.db
            .selectFrom('webhook')
            .selectAll()
            .where('itwin_id', '=', iTwinId)
            .where('id', '=', id)
            .executeTakeFirst();
    if (row === undefined) throw new ApiError('WebhookNotFound');
    return row;
  }

  /** @throws ApiError WebhookNotFound */
  async update(caller: Caller, iTwinId: string, id: string | undefined, change: WebhookChange): Promise<WebhookTable> {
    const before = await this.get(iTwinId, id);
    const row: WebhookTable = {
      ...before,
      callback_url: change.callbackUrl ?? before.callback_url,
      secret: change.secret ?? before.secret,
      event_types: change.eventTypes === undefined ? before.event_types : JSON.stringify(change.eventTypes),
      is_active: change.isActive === undefined ? before.is_active : change.isActive ? 1 : 0,
      // An update ends the pause: the receiver may have been repaired or replaced.
      failures: 0,
      paused_until: null,
    };
    await this.#database.db.transaction().execute(async (tx) => {
      const { callback_url, secret, event_types, is_active, failures, paused_until } = row;
      await tx
        .updateTable('webhook')
        .set({ callback_url, secret, event_types, is_active, failures, paused_until })
        .where('id', '=', row.id)
        .execute();
      await audit(tx, caller, {
        at: Date.now(),
        action: 'webhook.update',
        iTwinId,
        detail: { id: row.id, callbackUrl: callback_url, isActive: is_active === 1 },
      });
    });
    return row;
  }

  /** Deletes a webhook and its scheduled deliveries. @throws ApiError WebhookNotFound */
  async delete(caller: Caller, iTwinId: string, id: string | undefined): Promise<void> {
    const row = await this.get(iTwinId, id);
    await this.#database.db.transaction().execute(async (tx) => {
      await tx.deleteFrom('job').where('kind', '=', deliverJob).where('subject_id', '=', row.id).execute();
      await tx.deleteFrom('webhook').where('id', '=', row.id).execute();
      await audit(tx, caller, { at: Date.now(), action: 'webhook.delete', iTwinId, detail: { id: row.id } });
    });
  }

  /** Dead letters, oldest first. */
  async deadLetters(webhookId: string, request: PageRequest): Promise<Page<JobTable>> {
    const query = this.#database.db
      .selectFrom('job')
      .selectAll()
      .where('kind', '=', deliverJob)
      .where('subject_id', '=', webhookId)
      .where('state', '=', 'failed');
    return readPage(query, request);
  }

  /** Schedules a dead letter again, with a new set of attempts. @throws ApiError DeliveryNotFound */
  async redeliver(caller: Caller, iTwinId: string, webhookId: string, deliveryId: string | undefined): Promise<void> {
    await this.#database.db.transaction().execute(async (tx) => {
      const again = await tx
        .updateTable('job')
        .set({ state: 'ready', attempt: 0, run_at: Date.now() })
        .where('id', '=', deliveryId ?? '')
        .where('kind', '=', deliverJob)
        .where('subject_id', '=', webhookId)
        .where('state', '=', 'failed')
        .executeTakeFirst();
      if (again.numUpdatedRows === 0n) throw new ApiError('DeliveryNotFound');
      await audit(tx, caller, {
        at: Date.now(),
        action: 'webhook.redeliver',
        iTwinId,
        detail: { id: webhookId, messageId: deliveryId },
      });
    });
  }
}
