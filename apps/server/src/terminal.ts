import type { WriteStream } from 'node:tty';

/** Control, bidirectional and invisible characters, except line breaks and tabs. */
const unprintable = /[^\P{Cc}\n\t]|[\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu;

/** Escapes unprintable characters as in JSON, so that JSON output keeps its meaning. */
export function printable(text: string): string {
  return text.replace(unprintable, (character) =>
    Array.from(
      { length: character.length },
      (_, n) => `\\u${character.charCodeAt(n).toString(16).padStart(4, '0')}`,
    ).join(''),
  );
}

/** A JSON log line whose strings are still printable after a log viewer has decoded them. */
export function printableLog(line: string): string {
  // Escapes are matched one by one, because an escaped backslash does not start another escape.
  return printable(line).replace(
    /\\(?:u([0-9a-f]{4})|(.))/giu,
    (escape: string, code: string | undefined, letter: string | undefined) => {
      const spelled =
        code === undefined
          ? 'bfr'.includes(letter ?? '-')
          : printable(String.fromCharCode(parseInt(code, 16))).length > 1;
      return spelled ? `\\${escape}` : escape;
    },
  );
}

type Write = WriteStream['write'];
const originals = new WeakMap<NodeJS.WriteStream, Write>();

/** Makes the standard streams of a command printable: names chosen by users may contain terminal escapes. */
export function cleanOutput(...streams: readonly NodeJS.WriteStream[]): void {
  for (const stream of streams) {
    const original = stream.write.bind(stream) as (text: string, ...rest: unknown[]) => boolean;
    originals.set(stream, original);
    const write = (chunk: string | Uint8Array, ...rest: unknown[]): boolean =>
      original(printable(typeof chunk === 'string' ? chunk : Buffer.from(chunk).toString('utf8')), ...rest);
    stream.write = write;
  }
}

/** The unfiltered stream, for drawing such as progress bars. Never write names chosen by users to it. */
export function drawable(stream: NodeJS.WriteStream): NodeJS.WriteStream {
  return Object.create(stream, {
    write: { value: originals.get(stream) ?? stream.write.bind(stream) },
  }) as NodeJS.WriteStream;
}

/** A number of things whose plural ends in s: `1 file`, `2 files`. */
export function countText(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}
