import type { Config } from '../config.ts';

/** Maximum time of a statement, and maximum idle time within a transaction, milliseconds. */
export const statementMs = 60_000;

/** The settings of the connections to PostgreSQL. */
export type PoolConfig = Pick<
  Config,
  'databasePool' | 'databasePrepares' | 'databaseWaitSeconds' | 'databaseLockSeconds'
>;
