import type { CallOptions } from '../../storage/blobStore.ts';
import type { IsolationLevel } from '../../domain.ts';
import type { WorkRequest, WorkResult } from './worker.ts';

/** Makes model files with iTwin.js, outside the server's process: on this machine, or by the iTwin.js service. */
export interface ModelWorker {
  /**
   * Makes a file what the request says.
   * @param options.onProgress hears that the work is watched, which its own limits bound: the caller need not time it
   * @throws FileFaultError when the files are at fault; PublicError when the process ended, grew too large or fell silent
   */
  work(
    request: WorkRequest,
    options: CallOptions & { signal: AbortSignal },
    onApplied: (index: number) => void,
  ): Promise<WorkResult>;
  /** The process that works here at the moment, for tests that end it. */
  readonly pid: number | undefined;
  /** The isolation of iTwin.js from everything else on its machine. @throws IsolationError, or what keeps it from being known */
  level(): Promise<IsolationLevel>;
  /** The version of iTwin.js. */
  version(): Promise<string>;
  /** Ends it: what does not end within `graceMs` is killed. */
  stop(graceMs: number): Promise<void>;
  /** Ends it at once. */
  kill(): void;
}
