import { copyFileSync, lstatSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { exitCodes, ExitError } from './exit.ts';

/** Files beside a SQLite database that hold part of it: a write-ahead log, and the journal of a transaction that was cut off. */
const companions = ['-wal', '-journal'] as const;

/** A file that can be uploaded as it is, and what to do when it has been. */
export interface UploadableFile {
  path: string;
  /** What was done to it, for the user; undefined when it is the given file. */
  note?: string;
  remove: () => void;
}

/**
 * A model file with all that belongs to it. iTwin.js keeps iModels in WAL mode, so after a crash, or with the file open, the latest
 * work is in a file beside it. Then a copy is made in a temporary folder, where SQLite puts both together; the user's own
 * files stay as they are.
 * @throws ExitError when that cannot be done
 */
export function settleModelFile(file: string): UploadableFile {
  // Somebody else may have made the folder: a link would bring in another file of whoever imports it.
  const linked = companions.find((ending) => lstatSync(file + ending, { throwIfNoEntry: false })?.isFile() === false);
  if (linked !== undefined)
    throw new ExitError(exitCodes.usage, `${path.resolve(file)}${linked} is a link, not a regular file`);
  const filled = companions.filter((ending) => (statSync(file + ending, { throwIfNoEntry: false })?.size ?? 0) > 0);
  if (filled.length === 0) return { path: file, remove: () => undefined };
  const folder = mkdtempSync(path.join(tmpdir(), 'offshoot-import-'));
  const remove = (): void => rmSync(folder, { recursive: true, force: true });
  try {
    const copy = path.join(folder, 'model.bim');
    const parts = ['', ...filled];
    const before = parts.map((ending) => stateOf(file + ending));
    for (const ending of parts) copyFileSync(file + ending, copy + ending);
    if (parts.some((ending, n) => stateOf(file + ending) !== before[n]))
      throw new ExitError(
        exitCodes.failed,
        `${path.resolve(file)} is being written; close it in the program that has it open, and try again`,
      );
    putTogether(copy, file, filled.includes('-wal'));
    return {
      path: copy,
      note: `the work in ${filled.map((ending) => path.basename(file) + ending).join(' and ')} is imported with it`,
      remove,
    };
  } catch (error) {
    remove();
    throw error;
  }
}

function putTogether(copy: string, file: string, hasLog: boolean): void {
  const refuse = (why: string, cause?: unknown): ExitError =>
    new ExitError(
      exitCodes.failed,
      `${path.resolve(file)} has work beside it that cannot be read (${why}). Open and close it in the program that wrote it, and try again.`,
      cause,
    );
  let db: DatabaseSync | undefined;
  try {
    db = new DatabaseSync(copy);
    // Reading rolls a transaction back that was cut off.
    db.prepare('select count(*) from sqlite_master').get();
    const log = db.prepare('pragma wal_checkpoint(passive)').get() as { log: number; checkpointed: number } | undefined;
    // A log that belongs to another state of the file counts no frames; a file that is in no WAL mode ignores it (-1).
    if (hasLog && (log === undefined || log.log <= 0 || log.checkpointed !== log.log))
      throw refuse('the write-ahead log does not belong to the file, or holds nothing that was committed');
    // What lies beside a file is its own by name only.
    const check = (db.prepare('pragma quick_check(1)').get() as { quick_check: string }).quick_check;
    if (check !== 'ok') throw refuse(check);
    db.prepare('pragma journal_mode = delete').get();
  } catch (error) {
    throw error instanceof ExitError ? error : refuse((error as Error).message, error);
  } finally {
    db?.close();
  }
}

/** Changes whenever the file is written. */
function stateOf(file: string): string {
  const { size, mtimeMs } = statSync(file);
  return `${size} ${mtimeMs}`;
}
