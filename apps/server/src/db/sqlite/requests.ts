import type { Connection, Execution } from './connection.ts';

/** A request to a connection. `within` runs only inside the open transaction, `alone` only outside of one. */
export type Request =
  | { kind: 'begin' | 'commit' | 'rollback' | 'moveLog' }
  | { kind: 'within' | 'alone' | 'script'; sql: string; parameters: readonly unknown[] };

/** Thrown if SQLite has ended the transaction, so that no further statement of it may run. */
export class EndedTransactionError extends Error {}

const nothing: Execution = { rows: [], changes: 0 };

/**
 * Executes one request. SQLite may roll a transaction back during any statement (full disk, failed read or write, out of memory),
 * and a failed COMMIT may leave it open. Later statements must neither continue such a transaction nor run without one, so the state
 * of the connection is checked before each statement, and a failed COMMIT is rolled back immediately.
 */
export function answer(connection: Connection, request: Request): Execution {
  switch (request.kind) {
    case 'begin':
      connection.rollback();
      return connection.execute('begin immediate', []);
    case 'within':
      if (!connection.inTransaction) throw new EndedTransactionError('the database has rolled this transaction back');
      return connection.execute(request.sql, request.parameters);
    case 'commit':
      if (!connection.inTransaction) throw new EndedTransactionError('the database has rolled this transaction back');
      try {
        return connection.execute('commit', []);
      } catch (error) {
        connection.rollback();
        throw error;
      }
    case 'rollback':
      connection.rollback();
      return nothing;
    case 'moveLog':
      // Not part of a turn, so a transaction may be open, in which SQLite refuses this.
      if (connection.inTransaction) throw new Error('a transaction is open');
      return connection.execute('pragma wal_checkpoint(passive)', []);
    case 'alone':
      connection.rollback();
      return connection.execute(request.sql, request.parameters);
    case 'script':
      connection.rollback();
      connection.script(request.sql);
      return nothing;
  }
}
