import { closeSync, openSync, readSync } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { ChangesetIdComputer } from './changesetId.ts';
import { InsertedElements } from './insertedElements.ts';

/** Bytes per read: about one packed chunk. */
const pieceBytes = 64 * 1024;

/** What the contents of a changeset file say. */
export interface ChangesetContents {
  /** As iTwin.js computes it. */
  id: string;
  size: number;
  /** Briefcases of the inserted elements; undefined if not requested, or if not all changes were understood. */
  briefcases: ReadonlySet<number> | undefined;
}

/** Reads a whole changeset file. @throws ChangesetFileError */
export async function readChangesetFile(
  file: string,
  parentId: string,
  wanted: { briefcases: boolean },
): Promise<ChangesetContents> {
  const elements = wanted.briefcases ? new InsertedElements() : undefined;
  const computer = new ChangesetIdComputer(parentId, elements && { onChanges: (changes) => elements.push(changes) });
  const fd = openSync(file, 'r');
  try {
    const buffer = Buffer.alloc(pieceBytes);
    for (let size = 0; ;) {
      const length = readSync(fd, buffer, 0, pieceBytes, size);
      if (length === 0)
        return {
          id: computer.digest(),
          size,
          briefcases: elements?.readable === true ? elements.briefcases : undefined,
        };
      size += length;
      computer.update(buffer.subarray(0, length));
      // Lets the event loop handle signals and progress.
      await nextTurn();
    }
  } finally {
    closeSync(fd);
  }
}
