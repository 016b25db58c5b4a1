/** The exit codes of all commands. Scripts may rely on them. */
export const exitCodes = {
  /** The server accepted the operation and it failed, or an unexpected error occurred in the command. */
  failed: 1,
  /** The command line or an input file is invalid. */
  usage: 2,
  /** The server answered 4xx; the code and message are on stderr. */
  refused: 3,
  /** No answer, a 5xx, or the timeout expired. */
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
