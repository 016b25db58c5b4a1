import i18next from 'i18next';

const units = ['byte', 'kilobyte', 'megabyte', 'gigabyte', 'terabyte'] as const;
const formats = new Map<string, Intl.NumberFormat | Intl.DateTimeFormat | Intl.RelativeTimeFormat>();

/** Formats are kept, because making one takes longer than a row of a list may. */
function format<T extends Intl.NumberFormat | Intl.DateTimeFormat | Intl.RelativeTimeFormat>(
  kind: string,
  make: (language: string) => T,
): T {
  const key = `${i18next.language} ${kind}`;
  const known = formats.get(key);
  if (known !== undefined) return known as T;
  const made = make(i18next.language);
  formats.set(key, made);
  return made;
}

export function bytesText(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return format(
    `bytes${unit} ${value < 10}`,
    (language) =>
      new Intl.NumberFormat(language, {
        style: 'unit',
        unit: units[unit] as string,
        unitDisplay: unit === 0 ? 'long' : 'short',
        maximumFractionDigits: unit > 0 && value < 10 ? 1 : 0,
      }),
  ).format(value);
}

export const numberText = (value: number): string =>
  format('number', (language) => new Intl.NumberFormat(language)).format(value);

export const percentText = (share: number): string =>
  format('percent', (language) => new Intl.NumberFormat(language, { style: 'percent' })).format(share);

export const dateText = (time: string): string =>
  format('date', (language) => new Intl.DateTimeFormat(language, { dateStyle: 'medium', timeStyle: 'short' })).format(
    new Date(time),
  );

const steps = [
  ['year', 365 * 86_400],
  ['month', 30 * 86_400],
  ['week', 7 * 86_400],
  ['day', 86_400],
  ['hour', 3600],
  ['minute', 60],
] as const;

/** How long ago a time is, in words. */
export function agoText(time: string): string {
  const seconds = (Date.now() - Date.parse(time)) / 1000;
  const relative = format('ago', (language) => new Intl.RelativeTimeFormat(language, { numeric: 'auto' }));
  for (const [unit, length] of steps)
    if (seconds >= length) return relative.format(-Math.floor(seconds / length), unit);
  return relative.format(0, 'minute');
}
