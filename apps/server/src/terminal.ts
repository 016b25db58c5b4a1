import type { WriteStream } from 'node:tty';

/** What moves the cursor, rings, clears, turns the writing direction, or is not seen at all. Lines and tabs are text. */
const unprintable = /[^\P{Cc}\n\t]|[\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu;

/** Text as it may go to a terminal, with the rest spelled out as JSON spells it, so that JSON stays the same JSON. */
export function printable(text: string): string {
  return text.replace(unprintable, (character) =>
    Array.from(
      { length: character.length },
      (_, n) => `\\u${character.charCodeAt(n).toString(16).padStart(4, '0')}`,
    ).join(''),
  );
}

/** A line of the log, which is JSON, so that its texts are printable when they are shown. */
export function printableLog(line: string): string {
  // Escapes are read one by one: a backslash that is escaped itself does not begin another.
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

/** Lets nothing but printable text out of the standard streams of a command, whoever writes it: names are of their givers' choice. */
export function cleanOutput(...streams: readonly NodeJS.WriteStream[]): void {
  for (const stream of streams) {
    const original = stream.write.bind(stream) as (text: string, ...rest: unknown[]) => boolean;
    originals.set(stream, original);
    const write = (chunk: string | Uint8Array, ...rest: unknown[]): boolean =>
      original(printable(typeof chunk === 'string' ? chunk : Buffer.from(chunk).toString('utf8')), ...rest);
    stream.write = write;
  }
}

/** The same stream for what draws, such as a progress bar: nothing that anybody named may go there. */
export function drawable(stream: NodeJS.WriteStream): NodeJS.WriteStream {
  return Object.create(stream, {
    write: { value: originals.get(stream) ?? stream.write.bind(stream) },
  }) as NodeJS.WriteStream;
}
