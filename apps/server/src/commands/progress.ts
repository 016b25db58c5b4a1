import { SingleBar } from 'cli-progress';
import { drawable } from '../terminal.ts';

/** A progress bar of counts on standard error, gone when it ends; undefined where nobody looks, or nobody shall see one. */
export function progressBar(format: string, show: boolean): SingleBar | undefined {
  return show && process.stderr.isTTY
    ? new SingleBar({ format, stream: drawable(process.stderr), clearOnComplete: true })
    : undefined;
}
