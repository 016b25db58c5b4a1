import { sql } from 'kysely';
import type { Config } from '../config.ts';
import { databaseNow } from '../db/clock.ts';
import type { Database } from '../db/database.ts';
import type { WebhookTable } from '../db/schema.ts';
import { PublicError } from '../operations/reasons.ts';

/** Longest pause: a receiver that is back hears of it within this time, milliseconds. */
const longestPauseMs = 300_000;
/** How long one message that tries a failing receiver keeps the others back, milliseconds: longer than it may take to answer. */
const trialMs = 15_000;

/**
 * Keeps the places of deliveries from receivers that fail: after `pauseAfter` failures in a row nothing is sent to a webhook for a while,
 * then one message tries it. Each further failure doubles the pause. Pauses are of one webhook, not of its host: nobody can
 * have somebody else's messages held back. Kept in the database, so that all servers heed them.
 */
export class Receivers {
  readonly #database: Database;
  readonly #config: Pick<Config['webhooks'], 'pauseAfter' | 'pauseSeconds'>;

  constructor(database: Database, config: Pick<Config['webhooks'], 'pauseAfter' | 'pauseSeconds'>) {
    this.#database = database;
    this.#config = config;
  }

  /** Asks whether a message may be sent now. @throws PublicError while the webhook is paused */
  async require({ id, failures }: WebhookTable): Promise<void> {
    if (failures < this.#config.pauseAfter) return;
    const { db } = this.#database;
    const now = databaseNow(db);
    const trial = await db
      .updateTable('webhook')
      .set({ paused_until: sql<number>`${now} + ${trialMs}` })
      .where('id', '=', id)
      // One that ends later than any pause was begun on a clock that has been set back.
      .where(
        sql<boolean>`(paused_until is null or paused_until <= ${now} or paused_until > ${now} + ${longestPauseMs})`,
      )
      .executeTakeFirst();
    if (trial.numUpdatedRows === 0n)
      throw new PublicError('The receiver failed repeatedly: nothing is sent to it for a while.');
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
    // Of those that were under way together only the ones up to the limit count, and later the one that tries it again.
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
