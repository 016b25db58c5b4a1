/**
 * Reads a large users file in a thread of its own, and changes it before if asked to. The contents leave in slices, one for each
 * message that asks for one, because making 100,000 entries of one message would stop the thread that answers requests for 0.2 s.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { changeUsersFile, readUsersFile, type DirectoryData, type UsersFileChange } from './usersFile.ts';

/** What the thread is to do. */
export interface UsersFileTask {
  file: string;
  change?: UsersFileChange;
}

/** A part of the contents, JSON of a partial `DirectoryData`; or the end, with the time of the file's last change. */
export type UsersFileSlice = { part: string } | { modifiedAt: number };

/** Length of a slice, UTF-16 code units, unless a single entry is longer. It is parsed and added in less than a millisecond. */
const sliceLength = 65_536;

const { file, change } = workerData as UsersFileTask;
if (change !== undefined) changeUsersFile(file, change);
const { data, modifiedAt } = readUsersFile(file);
const parts = partsOf(data);
const send = (): void => {
  const { value, done } = parts.next();
  parentPort?.postMessage((done === true ? { modifiedAt } : { part: value }) satisfies UsersFileSlice);
};
parentPort?.on('message', send);
send();

function* partsOf(contents: DirectoryData): Generator<string, undefined> {
  for (const name of ['organizations', 'users', 'applications'] as const) {
    let [entries, length]: [string[], number] = [[], 0];
    const part = (): string => `{"${name}":[${entries.join(',')}]}`;
    for (const entry of contents[name]) {
      const text = JSON.stringify(entry);
      if (entries.length > 0 && length + text.length > sliceLength) {
        yield part();
        [entries, length] = [[], 0];
      }
      entries.push(text);
      length += text.length;
    }
    yield part();
  }
}
