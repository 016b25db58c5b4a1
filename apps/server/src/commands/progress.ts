import { SingleBar } from 'cli-progress';

/** A progress bar on standard error, gone when it ends; undefined where nobody looks, or nobody shall see one. */
export function progressBar(format: string, show: boolean): SingleBar | undefined {
  return show && process.stderr.isTTY ? new SingleBar({ format, stream: process.stderr, clearOnComplete: true }) : undefined;
}
