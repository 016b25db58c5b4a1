import { isForeignKeyError } from '../db/database.ts';
import type { Seeds } from '../baselines/baselines.ts';

/** The most rows that one transaction of the collector changes, so that it never delays other transactions for long. */
export const chunk = 1000;

export interface CollectorOptions {
  /** Least age of a release before the bytes are deleted, milliseconds; longer than any signed link lives. */
  graceMs: number;
  /** How long an upload link lives, and how long an upload that outlasts it may pause, milliseconds. */
  uploadLifeMs: number;
  /** How long a stored file may wait for the completion of its upload, milliseconds; a day by default. */
  completionLifeMs?: number;
  /** How long a changeset group stays open without a changeset, milliseconds. */
  groupLifeMs: number;
  /** The baselines of new iModels, which are kept whether or not an iModel uses them. */
  seeds: Seeds;
  /** Also searches what no deletion has touched: every orphaned row, and every object of the stores. Costly, so done rarely. */
  thorough: boolean;
  /** The clock by which ages are measured, ms since 1970; a clock that was set ahead must not make anything old. */
  now?: () => number;
  /** Ends the run between two steps. */
  signal?: AbortSignal | undefined;
}

export const timeOf = ({ now = Date.now }: Pick<CollectorOptions, 'now'>): number => now();

/**
 * Runs a deletion and returns how many rows it deleted: 0 if a new reference prevents it by its foreign key. The next
 * thorough run deletes the others.
 */
export async function unlessInUse(deletion: () => Promise<number>): Promise<number> {
  try {
    return await deletion();
  } catch (error) {
    if (isForeignKeyError(error)) return 0;
    throw error;
  }
}
