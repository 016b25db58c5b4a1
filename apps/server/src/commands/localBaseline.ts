import { copyFileSync, lstatSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { exitCodes, ExitError } from './exit.ts';

/**
 * Files beside a SQLite database that contain part of it: the write-ahead log, and the journal of an interrupted
 * transaction.
 */
const companions = ['-wal', '-journal'] as const;

/** A file that is ready for upload, and its clean-up afterwards. */
export interface UploadableFile {
  path: string;
  /** Describes for the user what was merged into it; undefined if it is the given file. */
  note?: string;
  remove: () => void;
}

/**
 * Returns a model file that contains all committed changes. iTwin.js keeps iModels in WAL mode, so after a crash, or
 * while the file is open, the latest changes are in a file beside it. In that case SQLite merges them in a copy in a
 * temporary folder; the user's own files are not modified.
 * @throws ExitError if they cannot be merged
 */
export function settleModelFile(file: string): UploadableFile {
  // The folder may come from someone else: a symbolic link in it could upload another file of the user.
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
    // Reading rolls back an interrupted transaction.
    db.prepare('select count(*) from sqlite_master').get();
    const log = db.prepare('pragma wal_checkpoint(passive)').get() as { log: number; checkpointed: number } | undefined;
    // A log that belongs to another state of the file reports 0 frames; a file that is not in WAL mode reports -1.
    if (hasLog && (log === undefined || log.log <= 0 || log.checkpointed !== log.log))
      throw refuse('the write-ahead log does not belong to the file, or holds nothing that was committed');
    // Only the name says that a log belongs to the file, so check the merged result.
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
