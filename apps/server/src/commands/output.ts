/** A column of a table. */
export interface Column<T> {
  title: string;
  of: (item: T) => string | number | boolean | null | undefined;
}

/** Options of commands that print data. */
export interface OutputOptions {
  json?: boolean;
}

const gap = '  ';

/**
 * Prints a list: one JSON array, or a table with columns of equal width and without borders, so that other programs can
 * cut it. A missing value is printed as `-`.
 */
export function printList<T>(
  items: readonly T[],
  columns: readonly Column<T>[],
  { json = false }: OutputOptions,
): void {
  if (json) {
    process.stdout.write(`${JSON.stringify(items)}\n`);
    return;
  }
  const rows = items.map((item) => columns.map((column) => cell(column.of(item))));
  const widths = columns.map((column, index) =>
    rows.reduce((width, row) => Math.max(width, widthOf(row[index] ?? '')), column.title.length),
  );
  const numeric = columns.map(
    (column) => items.length > 0 && items.every((item) => typeof column.of(item) === 'number'),
  );
  const lines = [columns.map(({ title }) => title), ...rows].map((row) =>
    row
      .map((text, index) => {
        const space = ' '.repeat(Math.max(0, (widths[index] ?? 0) - widthOf(text)));
        return numeric[index] === true ? space + text : text + space;
      })
      .join(gap)
      .trimEnd(),
  );
  process.stdout.write(`${lines.join('\n')}\n`);
}

/** Prints one object: as JSON, or a line for each column. */
export function printObject<T>(item: T, columns: readonly Column<T>[], { json = false }: OutputOptions): void {
  if (json) {
    process.stdout.write(`${JSON.stringify(item)}\n`);
    return;
  }
  const width = Math.max(...columns.map(({ title }) => title.length));
  for (const { title, of } of columns)
    process.stdout.write(
      `${title.padEnd(width)}${gap}${cell(of(item)).replaceAll('\n', `\n${' '.repeat(width)}${gap}`)}\n`,
    );
}

/** Prints the result of a change that has no representation: `{"id": …, "deleted": true}`, or a sentence. */
export function printDone(result: Record<string, unknown>, sentence: string, { json = false }: OutputOptions): void {
  process.stdout.write(json ? `${JSON.stringify(result)}\n` : `${sentence}\n`);
}

/** A number of bytes for people. */
export function bytesText(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  const power = bytes < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(bytes) / 10));
  const value = bytes / 1024 ** power;
  return `${power === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[power]}`;
}

/** A time of the API for people: to the second, UTC. */
export function timeText(time: string | null | undefined): string | null {
  return time == null ? null : time.replace(/\.\d+Z$/, 'Z');
}

function cell(value: string | number | boolean | null | undefined): string {
  if (value === true || value === false) return value ? 'yes' : 'no';
  return value == null || value === '' ? '-' : String(value);
}

/** Columns that a text takes in a terminal: ideographs and pictures take two, combining marks none. */
function widthOf(text: string): number {
  let width = 0;
  for (const character of text)
    width += /\p{M}/u.test(character)
      ? 0
      : /[\p{Script=Han}\p{Script=Hangul}\p{Script=Hiragana}\p{Script=Katakana}\p{Emoji_Presentation}]/u.test(character)
        ? 2
        : 1;
  return width;
}
