import { sql } from 'kysely';
import type { Config } from '../config.ts';
import { databaseNow } from '../db/clock.ts';
import type { Database } from '../db/database.ts';
import type { WebhookTable } from '../db/schemaOfITwins.ts';
import { PublicError } from '../operations/reasons.ts';

/** Longest pause of a failing webhook, milliseconds. A receiver that works again gets messages within this time. */
const longestPauseMs = 300_000;
/** How long a trial message blocks other messages to the same webhook, milliseconds: longer than its answer may take. */
const trialMs = 15_000;

/**
 * Circuit breaker for webhooks, so that failing receivers do not occupy delivery slots: after `pauseAfter` consecutive failures
 * a webhook is paused, then one trial message is sent. Each further failure doubles the pause. A pause applies to one webhook
 * and not to its host, so that no user can delay the messages of another. It is stored in the database for all servers.
 */
export class Receivers {
  readonly #database: Database;
  readonly #config: Pick<Config['webhooks'], 'pauseAfter' | 'pauseSeconds'>;

  constructor(database: Database, config: Pick<Config['webhooks'], 'pauseAfter' | 'pauseSeconds'>) {
    this.#database = database;
    this.#config = config;
  }

  /** Checks whether a message may be sent now. @throws PublicError while the webhook is paused */
  async require({ id, failures }: WebhookTable): Promise<void> {
    if (failures < this.#config.pauseAfter) return;
    const { db } = this.#database;
    const now = databaseNow(db);
    const trial = await db
      .updateTable('webhook')
      .set({ paused_until: sql<number>`${now} + ${trialMs}` })
      .where('id', '=', id)
      // An end beyond the longest pause was computed before the clock was set back.
      .where(
        sql<boolean>`(paused_until is null or paused_until <= ${now} or paused_until > ${now} + ${longestPauseMs})`,
      )
      .executeTakeFirst();
    if (trial.numUpdatedRows === 0n)
      throw new PublicError('The receiver failed repeatedly, so deliveries to it are paused.');
  }

  async succeeded({ id, failures }: WebhookTable): Promise<void> {
    if (failures > 0)
      await this.#database.db
        .updateTable('webhook')
        .set({ failures: 0, paused_until: null })
        .where('id', '=', id)
        .execute();
  }

  async failed({ id, failures }: WebhookTable): Promise<void> {
    const { db } = this.#database;
    const { pauseAfter, pauseSeconds } = this.#config;
    // Concurrent failures count only up to the limit; after that, only those of the trial messages count.
    const row = await db
      .updateTable('webhook')
      .set((eb) => ({ failures: eb('failures', '+', 1) }))
      .where('id', '=', id)
      .$if(failures < pauseAfter, (query) => query.where('failures', '<', pauseAfter))
      .returning('failures')
      .executeTakeFirst();
    if (row === undefined || row.failures < pauseAfter) return;
    const pauseMs = Math.round(
      Math.min(longestPauseMs, pauseSeconds * 1000 * 2 ** Math.min(row.failures - pauseAfter, 30)),
    );
    await db
      .updateTable('webhook')
      .set({ paused_until: sql<number>`${databaseNow(db)} + ${pauseMs}` })
      .where('id', '=', id)
      .execute();
  }
}
