import { SingleBar } from 'cli-progress';
import { drawable } from '../terminal.ts';

/**
 * A progress bar on standard error that is cleared when it stops; undefined if `show` is false or there is no terminal.
 */
export function progressBar(format: string, show: boolean): SingleBar | undefined {
  return show && process.stderr.isTTY
    ? new SingleBar({ format, stream: drawable(process.stderr), clearOnComplete: true })
    : undefined;
}
