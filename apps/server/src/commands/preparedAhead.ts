import { readFile, stat } from 'node:fs/promises';
import { exitCodes, ExitError } from './exit.ts';

/**
 * How many changesets are prepared while one is pushed, and how many bytes they may have. The changeset after the one that is
 * pushed is always prepared, whatever its size.
 */
const most = { changesets: 4, bytes: 64 * 2 ** 20 };
/** Files up to this size are read into memory before they are pushed; larger ones are streamed. */
const mostInMemory = 8 * 2 ** 20;

/** A changeset to push. */
export interface SourceChangeset {
  id: string;
  parentId: string;
  description: string | null;
  containingChanges: number;
  synchronizationInfo: { taskId: string; changedFiles?: string[] | null } | null;
  /** Briefcase that made it; null if unknown. */
  briefcaseId: number | null;
  fileSize: number;
  /**
   * Provides the file, with its id verified, and returns its path. Called only when the changeset, or one of a few before
   * it, is about to be pushed.
   * @param signal aborted if an earlier changeset could not be pushed
   */
  file(signal: AbortSignal): Promise<string>;
  /** Called when the changeset has been pushed: the file is not needed any more. */
  pushed?(): Promise<void>;
}

/** A changeset whose file was provided and checked. */
export interface Prepared {
  changeset: SourceChangeset;
  file: string;
  /** The content, unless the file is large. */
  bytes: Buffer<ArrayBuffer> | undefined;
}

/**
 * Provides the files of changesets, in order, while earlier ones are pushed: an iModel accepts one push at a time, so
 * downloading, checking and reading the next files is all that can overlap it. An error is thrown when its changeset is next.
 */
export async function* preparedAhead(changesets: AsyncIterable<SourceChangeset>): AsyncGenerator<Prepared> {
  const abort = new AbortController();
  const queue: { bytes: number; prepared: Promise<Prepared> }[] = [];
  let announced = Promise.withResolvers<void>();
  let taken = Promise.withResolvers<void>();
  let ended = false;
  let failure: { error: unknown } | undefined;

  const isFull = (): boolean =>
    queue.length > 0 &&
    (queue.length >= most.changesets || queue.reduce((sum, { bytes }) => sum + bytes, 0) >= most.bytes);
  const fill = async (): Promise<void> => {
    try {
      for await (const changeset of changesets) {
        while (isFull() && !abort.signal.aborted) await taken.promise;
        if (abort.signal.aborted) break;
        const prepared = prepare(changeset, abort.signal);
        // It is reported when it is next, if at all.
        prepared.catch(() => undefined);
        queue.push({ bytes: changeset.fileSize, prepared });
        announced.resolve();
      }
    } catch (error) {
      failure = { error };
    }
    ended = true;
    announced.resolve();
  };
  void fill();
  try {
    for (;;) {
      const next = queue[0];
      if (next !== undefined) {
        yield await next.prepared;
        queue.shift();
        taken.resolve();
        taken = Promise.withResolvers();
      } else if (ended) {
        if (failure !== undefined) throw failure.error;
        return;
      } else {
        await announced.promise;
        announced = Promise.withResolvers();
      }
    }
  } finally {
    abort.abort();
    taken.resolve();
    await Promise.allSettled(queue.map(({ prepared }) => prepared));
  }
}

async function prepare(changeset: SourceChangeset, signal: AbortSignal): Promise<Prepared> {
  const file = await changeset.file(signal);
  const { size } = await stat(file);
  if (size !== changeset.fileSize)
    throw new ExitError(
      exitCodes.failed,
      `changeset ${changeset.id} has ${size} bytes instead of ${changeset.fileSize}: it is damaged`,
    );
  return { changeset, file, bytes: size <= mostInMemory ? await readFile(file) : undefined };
}
