/**
 * An error whose message is written for users: a full sentence without server paths, stack traces, internal names or
 * output of other programs. The underlying error goes into `cause`, for the log.
 */
export class PublicError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'PublicError';
  }
}

/** An error that a retry cannot fix. Its message is for users, like that of every `PublicError`. */
export class FinalError extends PublicError {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'FinalError';
  }
}

/** Maximum length of a stored reason, in characters. */
const longestReason = 2000;

/**
 * The reason shown to users: the message of a `PublicError`, a generic sentence for any other error.
 * @param reference id under which the log has the full error
 */
export function reasonForUsers(error: Error, reference: string): string {
  const reason =
    error instanceof PublicError
      ? error.message
      : `The server met an unexpected error. Its log has more under the reference ${reference}.`;
  return reason.slice(0, longestReason);
}
