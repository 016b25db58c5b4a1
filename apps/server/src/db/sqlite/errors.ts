import { UnavailableError } from '../../outages.ts';

/** An SQLite error, with its extended result code. */
export class SqliteError extends Error {
  readonly errcode: number | undefined;
  constructor(message: string, errcode: number | undefined) {
    super(message);
    this.name = 'SqliteError';
    this.errcode = errcode;
  }
}

/** The embedded database did not answer in time, or its thread has ended. Whether a statement took effect is unknown. */
export class WriterUnavailableError extends UnavailableError {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'WriterUnavailableError';
  }
}

/** Thrown for a statement of a transaction that the database has already rolled back. None of it took effect. */
export class LostTransactionError extends UnavailableError {
  constructor(message = 'the transaction has ended already') {
    super(message);
    this.name = 'LostTransactionError';
  }
}
