import { createWriteStream, type WriteStream } from 'node:fs';

/**
 * Writes a file by a stream, and returns once the file is closed, however the writing ended. A stream that fails may still be
 * opening the file, which empties it, or writing to it: whoever writes the file anew has to come after that.
 * @param flags `a` appends, `w` writes anew
 */
export async function intoFile<T>(
  target: string,
  flags: 'a' | 'w',
  write: (sink: WriteStream) => Promise<T>,
): Promise<T> {
  const sink = createWriteStream(target, { flags });
  const closed = new Promise<void>((resolve) => sink.once('close', () => resolve()));
  try {
    return await write(sink);
  } finally {
    sink.destroy();
    await closed;
  }
}
