import { createWriteStream, type WriteStream } from 'node:fs';

/**
 * Writes a file through a stream, and returns after the file is closed, on success and on failure. A failed stream may
 * still be opening (and truncating) the file or writing to it, so a retry must not start before that.
 * @param flags `a` appends, `w` overwrites
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
