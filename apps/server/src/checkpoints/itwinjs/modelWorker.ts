import type { CallOptions } from '../../storage/blobStore.ts';
import type { IsolationLevel } from '../../domain.ts';
import type { WorkRequest, WorkResult } from './worker.ts';

/**
 * Works on model files with iTwin.js outside the server's process: in a process on this machine, or in the iTwin.js
 * service.
 */
export interface ModelWorker<Request = WorkRequest, Result = WorkResult> {
  /**
   * Does what the request specifies.
   * @param onApplied called on progress, with the index of a changeset if those are applied
   * @param options.onProgress called while the worker enforces its own limits, so that the caller needs no timeout
   * @throws FileFaultError if the files cannot be processed; PublicError if the process ended or exceeded a limit
   */
  work(
    request: Request,
    options: CallOptions & { signal: AbortSignal },
    onApplied: (index: number) => void,
  ): Promise<Result>;
  /** Id of the current process, for tests that kill it. */
  readonly pid: number | undefined;
  /** The isolation level of the iTwin.js process. @throws IsolationError; any error that prevents the check */
  level(): Promise<IsolationLevel>;
  /** The version of iTwin.js. */
  version(): Promise<string>;
  /** Stops the process; kills it after `graceMs`. */
  stop(graceMs: number): Promise<void>;
  /** Kills the process. */
  kill(): void;
}
