/** What scripts can rely on. */
export const exitCodes = {
  /** The operation was accepted and failed, or something unexpected went wrong here. */
  failed: 1,
  /** The command line cannot be carried out as it is written. */
  usage: 2,
  /** The server answered 4xx; the code and message are on stderr. */
  refused: 3,
  /** No answer, a 5xx, or no end within the time allowed. */
  unreachable: 4,
} as const;

/** Ends the command with a message on stderr and an exit code. */
export class ExitError extends Error {
  readonly exitCode: number;
  constructor(exitCode: number, message: string, cause?: unknown) {
    super(message, { cause });
    this.name = 'ExitError';
    this.exitCode = exitCode;
  }
}
