/** Parsers of arguments and options. They run before a command calls a server. */
import { InvalidArgumentError, Option } from 'commander';

const dayMs = 24 * 3600 * 1000;
const unitMs: Record<string, number> = { m: 60_000, h: 3_600_000, d: dayMs };

/** A whole number from `least` to `most`. */
export function wholeNumber(least: number, most = Number.MAX_SAFE_INTEGER): (text: string) => number {
  return (text) => {
    const value = /^\d{1,16}$/.test(text) ? Number(text) : NaN;
    if (value >= least && value <= most) return value;
    throw new InvalidArgumentError(
      most === Number.MAX_SAFE_INTEGER
        ? `It must be a whole number, ${least} or more.`
        : `It must be a whole number from ${least} to ${most}.`,
    );
  };
}

/** The option for a timeout in seconds, which the command receives in milliseconds. */
export function timeoutOption(what: string, fallback: number): Option {
  return new Option('--timeout <seconds>', what).argParser(seconds).default(fallback * 1000, String(fallback));
}

/** A number of seconds, as milliseconds. */
function seconds(text: string): number {
  const value = /^\d{1,7}(\.\d{1,3})?$/.test(text) ? Number(text) * 1000 : NaN;
  if (value > 0 && value < 2 ** 31) return value;
  throw new InvalidArgumentError('It must be a number of seconds.');
}

/** The index or id of a changeset, in the form of the API. */
export function changesetRef(text: string): string {
  if (/^\d{1,15}$/.test(text)) return String(Number(text));
  if (/^[0-9a-f]{40}$/i.test(text)) return text.toLowerCase();
  throw new InvalidArgumentError('It must be the index of a changeset, or its id of 40 hex digits.');
}

/** A time: a date (its start, UTC), a date with time, or a time ago such as `30d`, in milliseconds. */
export function pastTime(text: string): number {
  return timeOf(text, -1);
}

/** A time in the future: a date (its start, UTC), a date with time, or a time from now such as `30d`, in milliseconds. */
export function futureTime(text: string): number {
  const time = timeOf(text, 1);
  if (time > Date.now()) return time;
  throw new InvalidArgumentError('It must be in the future.');
}

function timeOf(text: string, sign: 1 | -1): number {
  const [, count, unit] = /^(\d{1,5})([mhd])$/.exec(text) ?? [];
  const time =
    unit !== undefined
      ? Date.now() + sign * Number(count) * (unitMs[unit] as number)
      : /^\d{4}-\d{2}-\d{2}(T\S+)?$/.test(text)
        ? Date.parse(text)
        : NaN;
  if (!Number.isNaN(time)) return time;
  throw new InvalidArgumentError(
    'It must be a date (2026-01-31), a date with time (2026-01-31T12:00:00Z), or 30d, 12h, 15m.',
  );
}

/** One of several values; for options that may be repeated or hold a list. */
export function listOf<T extends string>(allowed: readonly T[]): (text: string, before?: readonly T[]) => T[] {
  return (text, before = []) => {
    const values = text.split(',').map((value) => value.trim());
    const wrong = values.find((value) => !(allowed as readonly string[]).includes(value));
    if (wrong !== undefined) throw new InvalidArgumentError(`Allowed values: ${allowed.join(', ')}.`);
    return [...new Set([...before, ...(values as T[])])];
  };
}

/** A text that may be given several times. */
export function texts(text: string, before: readonly string[] = []): string[] {
  return [...before, text];
}

/** A name of 1 to 255 characters. */
export function nameText(text: string): string {
  if (text.trim() !== '' && text.length <= 255) return text;
  throw new InvalidArgumentError('It must have 1 to 255 characters.');
}

/** An https or http address. */
export function address(text: string): string {
  if (URL.canParse(text) && /^https?:$/.test(new URL(text).protocol)) return text;
  throw new InvalidArgumentError('It must be an address such as https://example.com/events.');
}
