import { setTimeout as pause } from 'node:timers/promises';

/** Polls until `find` returns a value, at most `withinMs`, and returns that value. */
export async function until<T>(
  what: string,
  find: () => T | undefined | Promise<T | undefined>,
  withinMs = 20_000,
): Promise<T> {
  const end = Date.now() + withinMs;
  for (;;) {
    const found = await find();
    if (found !== undefined) return found;
    if (Date.now() > end) throw new Error(`${what} did not come about within ${withinMs} ms`);
    await pause(20);
  }
}
