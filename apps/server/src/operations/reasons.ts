/**
 * An error whose message is written for users: a full sentence without folders of the server, stack traces, internal names or
 * texts of other programs. What is behind it goes into `cause`, for the log.
 */
export class PublicError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'PublicError';
  }
}

/** A fault that another attempt cannot mend. Its message is for users, as that of every `PublicError`. */
export class FinalError extends PublicError {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'FinalError';
  }
}

/** Longest reason that is kept, characters. */
const longestReason = 2000;

/**
 * What users are told of an error: the message of one that was written for them, and a general sentence of any other.
 * @param reference leads to the log, which has the whole error
 */
export function reasonForUsers(error: Error, reference: string): string {
  const reason =
    error instanceof PublicError
      ? error.message
      : `The server met an unexpected error. Its log has more under the reference ${reference}.`;
  return reason.slice(0, longestReason);
}
